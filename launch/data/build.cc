#include "launch/data/build.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <iterator>
#include <memory>
#include <optional>
#include <span>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "launch/data/indexed_dataset.h"
#include "launch/data/jsonl.h"
#include "launch/tokenizer/tokenizer.h"

namespace strata {
namespace {

// Every file of the output. Old ones are removed in this order and new ones come in the reverse one: an index, which makes
// token files a dataset, is the first to go and the last to come.
constexpr std::string_view kOutputs[] = {"train.idx", "valid.idx", "train.sum", "valid.sum",      "train.bin",
                                         "valid.bin", kModelFile,  kJsonFile,   kTokenizerConfig, kGenerationConfig};

bool IsBlank(std::string_view text) { return text.find_first_not_of(" \t\r\n") == std::string_view::npos; }

struct Corpus {
  std::deque<std::string> storage;  // what the views point into
  std::vector<std::string_view> train, valid;
};

absl::Status AddText(Env& env, const std::string& path, double valid_fraction, Corpus& corpus) {
  ASSIGN_OR_RETURN(corpus.storage.emplace_back(), ReadUserFile(env, path));
  const std::string_view text = corpus.storage.back();
  if (IsBlank(text)) return absl::InvalidArgumentError(absl::StrFormat("%s: the text is empty", path));
  const size_t cut = ValidationCut(text, valid_fraction);
  if (cut > 0) corpus.train.push_back(text.substr(0, cut));
  if (cut < text.size()) corpus.valid.push_back(text.substr(cut));
  return absl::OkStatus();
}

absl::Status AddJsonl(Env& env, const BuildOptions& options, Corpus& corpus) {
  int64_t document = 0;
  for (const std::string& path : options.jsonl) {
    ASSIGN_OR_RETURN(std::vector<std::string> texts, ReadJsonl(env, path, options.field));
    if (texts.empty()) return absl::InvalidArgumentError(absl::StrFormat("%s: no documents", path));
    for (std::string& text : texts) {
      corpus.storage.push_back(std::move(text));
      const bool valid = IsValidation(document++, options.valid_fraction);
      (valid ? corpus.valid : corpus.train).push_back(corpus.storage.back());
    }
  }
  return absl::OkStatus();
}

absl::Status CheckOptions(const BuildOptions& options) {
  if (options.inputs.empty() && options.jsonl.empty()) {
    return absl::InvalidArgumentError("data build: no input files");
  }
  if (options.out.empty()) return absl::InvalidArgumentError("data build: no output folder");
  if (!(options.valid_fraction >= 0 && options.valid_fraction < 1)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("data build: valid_fraction %g is not in [0, 1)", options.valid_fraction));
  }
  return absl::OkStatus();
}

absl::StatusOr<Corpus> ReadCorpus(Env& env, const BuildOptions& options) {
  Corpus corpus;
  for (const std::string& path : options.inputs) RETURN_IF_ERROR(AddText(env, path, options.valid_fraction, corpus));
  RETURN_IF_ERROR(AddJsonl(env, options, corpus));
  if (options.valid_fraction == 0 || !corpus.valid.empty()) return corpus;
  if (options.jsonl.empty()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: no empty line to cut the validation text at", options.inputs.front()));
  }
  return absl::InvalidArgumentError(absl::StrFormat("%s: too few documents for a validation part of %g",
                                                    options.jsonl.front(), options.valid_fraction));
}

absl::StatusOr<SplitReport> WriteSplit(Env& env, const std::string& prefix, const Tokenizer& tokenizer,
                                       std::span<const std::string_view> texts) {
  ASSIGN_OR_RETURN(const auto writer,
                   IndexedDatasetWriter::Create(env, prefix, tokenizer.vocab_size(), tokenizer.crc32c()));
  SplitReport split{.documents = std::ssize(texts)};
  for (const std::string_view text : texts) {
    ASSIGN_OR_RETURN(const std::vector<int32_t> ids, tokenizer.EncodeDocument(text));
    RETURN_IF_ERROR(writer->AddDocument(ids));
    split.tokens += std::ssize(ids);
    split.bytes += std::ssize(text);
    split.chars += std::ranges::count_if(text, [](char c) { return (c & 0xC0) != 0x80; });
  }
  RETURN_IF_ERROR(writer->Finish());
  return split;
}

// A folder for the new files, beside those that they replace. Removed with the object, whatever is in it.
class Staging {
 public:
  Staging(Env& env, std::string path) : env_(env), path_(std::move(path)) {}
  ~Staging() { env_.RemoveAll(path_).IgnoreError(); }
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  absl::Status Make() {
    RETURN_IF_ERROR(env_.RemoveAll(path_));  // of a build that was killed
    return env_.MakeDirs(path_);
  }
  const std::string& path() const { return path_; }

  // Moves the files to `out`, in place of the old ones. Wherever this stops, a dataset that opens is whole.
  absl::Status MoveTo(const std::string& out) {
    for (const std::string_view name : kOutputs) RETURN_IF_ERROR(env_.RemoveAll(out + "/" + std::string(name)));
    for (auto name = std::rbegin(kOutputs); name != std::rend(kOutputs); ++name) {
      const std::string from = path_ + "/" + std::string(*name);
      if (env_.Exists(from)) RETURN_IF_ERROR(env_.Rename(from, out + "/" + std::string(*name)));
    }
    return env_.SyncDir(out);
  }

 private:
  Env& env_;
  const std::string path_;
};

}  // namespace

bool IsValidation(int64_t document, double valid_fraction) {
  const auto before = [&](int64_t n) { return std::floor(static_cast<double>(n) * valid_fraction); };
  return before(document + 1) > before(document);
}

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
  for (const std::string_view name : kOutputs) {
    const std::string path = options.out + "/" + std::string(name);
    if (!options.overwrite && env.Exists(path)) {
      return absl::AlreadyExistsError(absl::StrFormat("%s exists already; --force replaces it", path));
    }
  }
  ASSIGN_OR_RETURN(const Corpus corpus, ReadCorpus(env, options));
  ASSIGN_OR_RETURN(const Tokenizer tokenizer, options.tokenizer.empty()
                                                  ? Tokenizer::Train(corpus.train, options.vocab_size)
                                                  : Tokenizer::Load(env, options.tokenizer));

  Staging staging(env, options.out + "/build.tmp");
  RETURN_IF_ERROR(staging.Make());
  const std::string file(tokenizer.file_name());
  BuildReport report{.tokenizer_path = options.out + "/" + file,
                     .train_prefix = options.out + "/train",
                     .vocab_size = tokenizer.vocab_size()};
  RETURN_IF_ERROR(tokenizer.Save(env, staging.path() + "/" + file));
  ASSIGN_OR_RETURN(report.train, WriteSplit(env, staging.path() + "/train", tokenizer, corpus.train));
  if (!corpus.valid.empty()) {
    report.valid_prefix = options.out + "/valid";
    ASSIGN_OR_RETURN(report.valid, WriteSplit(env, staging.path() + "/valid", tokenizer, corpus.valid));
  }
  RETURN_IF_ERROR(staging.MoveTo(options.out));
  return report;
}

}  // namespace strata
