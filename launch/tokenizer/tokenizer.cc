#include "launch/tokenizer/tokenizer.h"

#include <algorithm>
#include <filesystem>

#include "absl/strings/str_format.h"
#include "core/base/crc32c.h"
#include "core/base/status.h"
#include "launch/tokenizer/byte_level_bpe.h"
#include "launch/tokenizer/model_check.h"
#include "launch/tokenizer/sentencepiece_model.h"

namespace strata {
namespace {

// Which special token is EOS, where no file beside the tokenizer.json says so.
constexpr std::string_view kUsualEos[] = {"<|endoftext|>", "<|end_of_text|>", "</s>",
                                          "<eos>",         "<|im_end|>",      "<|eot_id|>"};

bool IsJson(std::string_view bytes) {
  const size_t first = bytes.find_first_not_of(" \t\r\n");
  return first != std::string_view::npos && bytes[first] == '{';
}

bool StartsWith(std::span<const int32_t> ids, std::span<const int32_t> prefix) {
  return ids.size() >= prefix.size() && std::ranges::equal(ids.first(prefix.size()), prefix);
}

absl::StatusOr<int32_t> IdOfEos(const ByteLevelBpe& bpe, const std::string& token) {
  if (const int32_t id = bpe.FindAdded(token); id >= 0) return id;
  return absl::InvalidArgumentError(
      absl::StrFormat("%s: eos_token = \"%s\" is none of the tokenizer's added_tokens", kTokenizerConfig, token));
}

absl::StatusOr<std::string> ReadModelFile(Env& env, const std::string& path) {
  ASSIGN_OR_RETURN(const std::unique_ptr<ReadableFile> file, env.OpenLinked(path));
  if (file->size() > kMaxTokenizerJsonBytes) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s: %d bytes; the limit is %d", path, file->size(), kMaxTokenizerJsonBytes));
  }
  return ReadUserFile(env, path);
}

}  // namespace

std::string TokenizerIn(Env& env, const std::string& folder) {
  const std::string prefix = folder.empty() || folder.ends_with('/') ? folder : folder + "/";
  const std::string json = prefix + std::string(kJsonFile);
  return env.Exists(json) ? json : prefix + std::string(kModelFile);
}

absl::StatusOr<Tokenizer> Tokenizer::Train(std::span<const std::string_view> texts, int vocab_size) {
  if (std::ranges::all_of(texts, &std::string_view::empty)) {
    return absl::InvalidArgumentError("tokenizer: no text to train on");
  }
  std::string model;
  const std::string error = SentencePieceModel::Train(texts, vocab_size, &model);
  if (!error.empty()) {
    return absl::InvalidArgumentError(absl::StrFormat("tokenizer: vocabulary of %d: %s", vocab_size, error));
  }
  return FromModel(std::move(model));
}

absl::StatusOr<Tokenizer> Tokenizer::Load(Env& env, const std::string& path) {
  const std::string inside = TokenizerIn(env, path);
  const std::string& file = !path.empty() && env.Exists(inside) ? inside : path;
  ASSIGN_OR_RETURN(std::string bytes, ReadModelFile(env, file));
  absl::StatusOr<Tokenizer> tokenizer = absl::UnknownError("");
  if (IsJson(bytes)) {
    ASSIGN_OR_RETURN(std::vector<SpecialFile> beside,
                     ReadSpecialFiles(env, std::filesystem::path(file).parent_path().string()));
    tokenizer = FromJson(std::move(bytes), std::move(beside));
  } else {
    tokenizer = FromModel(std::move(bytes));
  }
  if (!tokenizer.ok()) return Annotate(tokenizer.status(), file);
  return tokenizer;
}

absl::Status Tokenizer::Save(Env& env, const std::string& path) const {
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  for (const SpecialFile& file : beside_) {
    RETURN_IF_ERROR(WriteTextAtomically(env, (folder / file.name).string(), file.text));
  }
  return WriteTextAtomically(env, path, bytes_);
}

absl::StatusOr<Tokenizer> Tokenizer::FromModel(std::string model) {
  const auto not_a_model = [](std::string_view why) {
    return absl::InvalidArgumentError(absl::StrFormat("not a SentencePiece model or tokenizer.json: %s", why));
  };
  if (const absl::Status s = CheckSentencePieceModel(model); !s.ok()) return not_a_model(std::string(s.message()));
  auto pieces = std::make_unique<SentencePieceModel>();
  if (const std::string error = pieces->Load(model); !error.empty()) return not_a_model(error);
  if (pieces->eos_id() < 0) return absl::InvalidArgumentError("the tokenizer has no EOS piece");
  Tokenizer tokenizer;
  tokenizer.eos_id_ = pieces->eos_id();
  tokenizer.stop_ = {pieces->eos_id()};
  tokenizer.codec_ = std::move(pieces);
  tokenizer.file_name_ = kModelFile;
  tokenizer.crc32c_ = Crc32c(std::as_bytes(std::span(model)));
  tokenizer.bytes_ = std::move(model);
  return tokenizer;
}

absl::StatusOr<Tokenizer> Tokenizer::FromJson(std::string json, std::vector<SpecialFile> beside) {
  ASSIGN_OR_RETURN(TokenizerJson parsed, ParseTokenizerJson(json));
  auto bpe = std::make_unique<ByteLevelBpe>(std::move(parsed));
  ASSIGN_OR_RETURN(const SpecialNames names, ParseSpecialFiles(beside));
  Tokenizer tokenizer;
  if (names.bos) tokenizer.bos_id_ = bpe->FindAdded(*names.bos);
  for (const int32_t id : names.stop) {
    if (id >= bpe->vocab_size()) {
      return absl::InvalidArgumentError(absl::StrFormat("%s: eos_token_id = %d, but the tokenizer has %d pieces",
                                                        kGenerationConfig, id, bpe->vocab_size()));
    }
  }
  tokenizer.stop_ = names.stop;
  if (names.eos) {
    ASSIGN_OR_RETURN(tokenizer.eos_id_, IdOfEos(*bpe, *names.eos));
  } else if (!names.stop.empty()) {
    tokenizer.eos_id_ = names.stop[0];
  } else {
    for (const std::string_view usual : kUsualEos) {
      if (tokenizer.eos_id_ < 0) tokenizer.eos_id_ = bpe->FindAdded(usual);
    }
  }
  tokenizer.stop_.push_back(tokenizer.eos_id_);
  tokenizer.prefix_ = bpe->prefix();
  tokenizer.suffix_ = bpe->suffix();
  tokenizer.codec_ = std::move(bpe);
  tokenizer.file_name_ = kJsonFile;
  tokenizer.beside_ = std::move(beside);
  tokenizer.crc32c_ = Crc32c(std::as_bytes(std::span(json)));
  tokenizer.bytes_ = std::move(json);
  return tokenizer;
}

absl::StatusOr<std::vector<int32_t>> Tokenizer::Encode(std::string_view text) const {
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 3);
  if (const std::string error = codec_->Encode(text, &ids); !error.empty()) {
    return absl::ResourceExhaustedError(absl::StrFormat("tokenizer: %s", error));
  }
  return ids;
}

absl::StatusOr<std::vector<int32_t>> Tokenizer::EncodePrompt(std::string_view text) const {
  ASSIGN_OR_RETURN(std::vector<int32_t> ids, Encode(text));
  if (!StartsWith(ids, prefix_)) ids.insert(ids.begin(), prefix_.begin(), prefix_.end());
  return ids;
}

absl::StatusOr<std::vector<int32_t>> Tokenizer::EncodeDocument(std::string_view text) const {
  if (eos_id_ < 0) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "the tokenizer has no token that ends a document: name one as eos_token in a %s beside it", kTokenizerConfig));
  }
  ASSIGN_OR_RETURN(std::vector<int32_t> ids, EncodePrompt(text));
  ids.insert(ids.end(), suffix_.begin(), suffix_.end());
  if (ids.empty() || ids.back() != eos_id_) ids.push_back(eos_id_);
  return ids;
}

bool Tokenizer::Stops(int32_t id) const { return id >= 0 && std::ranges::find(stop_, id) != stop_.end(); }

std::string Tokenizer::Decode(std::span<const int32_t> ids, SpecialText special) const {
  std::string text;
  codec_->Decode(ids, special, &text);
  return text;
}

}  // namespace strata
