#include "launch/data/build.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <span>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "launch/data/indexed_dataset.h"
#include "launch/tokenizer/tokenizer.h"

namespace strata {
namespace {

struct Document {
  std::unique_ptr<MappedFile> file;
  std::string_view train, valid;
};

bool IsBlank(std::string_view text) { return text.find_first_not_of(" \t\r\n") == std::string_view::npos; }

absl::StatusOr<Document> ReadDocument(Env& env, const std::string& path, double valid_fraction) {
  Document document;
  ASSIGN_OR_RETURN(document.file, env.Map(path));
  const auto bytes = document.file->bytes();
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (IsBlank(text)) return absl::InvalidArgumentError(absl::StrFormat("%s: the text is empty", path));
  const size_t cut = ValidationCut(text, valid_fraction);
  document.train = text.substr(0, cut);
  document.valid = text.substr(cut);
  return document;
}

absl::Status CheckOptions(const BuildOptions& options) {
  if (options.inputs.empty()) return absl::InvalidArgumentError("data build: no input files");
  if (options.out.empty()) return absl::InvalidArgumentError("data build: no output folder");
  if (!(options.valid_fraction >= 0 && options.valid_fraction < 1)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("data build: valid_fraction %g is not in [0, 1)", options.valid_fraction));
  }
  return absl::OkStatus();
}

// The texts of one split, without the empty ones.
std::vector<std::string_view> Texts(std::span<const Document> documents, std::string_view Document::*split) {
  std::vector<std::string_view> texts;
  for (const Document& document : documents) {
    if (!(document.*split).empty()) texts.push_back(document.*split);
  }
  return texts;
}

absl::StatusOr<SplitReport> WriteSplit(Env& env, const std::string& prefix, const Tokenizer& tokenizer,
                                       std::span<const std::string_view> texts) {
  ASSIGN_OR_RETURN(const auto writer, IndexedDatasetWriter::Create(env, prefix, tokenizer.vocab_size()));
  SplitReport split{.documents = std::ssize(texts)};
  for (const std::string_view text : texts) {
    std::vector<int32_t> ids = tokenizer.Encode(text);
    ids.push_back(tokenizer.eos_id());
    RETURN_IF_ERROR(writer->AddDocument(ids));
    split.tokens += std::ssize(ids);
    split.bytes += std::ssize(text);
    split.chars += std::ranges::count_if(text, [](char c) { return (c & 0xC0) != 0x80; });
  }
  RETURN_IF_ERROR(writer->Finish());
  return split;
}

}  // namespace

size_t ValidationCut(std::string_view text, double valid_fraction) {
  if (valid_fraction <= 0) return text.size();
  const double target = (1 - valid_fraction) * static_cast<double>(text.size());
  const auto distance = [&](size_t at) { return std::abs(static_cast<double>(at) - target); };
  std::optional<size_t> best;
  // A paragraph begins at a character that is no line break, behind two line breaks ("\n\n" or "\n\r\n").
  for (size_t at = text.find('\n'); at != std::string_view::npos;) {
    const size_t begin = text.find_first_not_of("\r\n", at);
    if (begin == std::string_view::npos) break;
    const bool paragraph = std::ranges::count(text.substr(at, begin - at), '\n') >= 2;
    if (paragraph && (!best || distance(begin) < distance(*best)) && !IsBlank(text.substr(0, begin))) best = begin;
    at = text.find('\n', begin);
  }
  return best && !IsBlank(text.substr(*best)) ? *best : text.size();
}

absl::StatusOr<BuildReport> BuildDataset(Env& env, const BuildOptions& options) {
  RETURN_IF_ERROR(CheckOptions(options));
  BuildReport report{.tokenizer_path = options.out + "/tokenizer.model",
                     .train_prefix = options.out + "/train",
                     .valid_prefix = options.out + "/valid"};
  const std::string outputs[] = {report.tokenizer_path, report.train_prefix + ".bin", report.train_prefix + ".idx",
                                 report.valid_prefix + ".bin", report.valid_prefix + ".idx"};
  for (const std::string& path : outputs) {
    if (!options.overwrite && env.Exists(path)) {
      return absl::AlreadyExistsError(absl::StrFormat("%s exists already; --force replaces it", path));
    }
  }

  std::vector<Document> documents;
  for (const std::string& path : options.inputs) {
    ASSIGN_OR_RETURN(auto document, ReadDocument(env, path, options.valid_fraction));
    documents.push_back(std::move(document));
  }
  const auto train = Texts(documents, &Document::train), valid = Texts(documents, &Document::valid);
  if (options.valid_fraction > 0 && valid.empty()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: no empty line to cut the validation text at", options.inputs.front()));
  }
  ASSIGN_OR_RETURN(const Tokenizer tokenizer, options.tokenizer.empty() ? Tokenizer::Train(train, options.vocab_size)
                                                                        : Tokenizer::Load(env, options.tokenizer));

  RETURN_IF_ERROR(env.MakeDirs(options.out));
  for (const std::string& path : outputs) RETURN_IF_ERROR(env.RemoveAll(path));
  RETURN_IF_ERROR(tokenizer.Save(env, report.tokenizer_path));
  report.vocab_size = tokenizer.vocab_size();
  ASSIGN_OR_RETURN(report.train, WriteSplit(env, report.train_prefix, tokenizer, train));
  if (valid.empty()) {
    report.valid_prefix.clear();
    return report;
  }
  ASSIGN_OR_RETURN(report.valid, WriteSplit(env, report.valid_prefix, tokenizer, valid));
  return report;
}

}  // namespace strata
