#include "launch/tokenizer/tokenizer.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "core/base/crc32c.h"
#include "core/base/status.h"
#include "launch/tokenizer/model_check.h"

namespace strata {

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
  ASSIGN_OR_RETURN(std::string model, ReadUserFile(env, path));
  auto tokenizer = FromModel(std::move(model));
  if (!tokenizer.ok()) return Annotate(tokenizer.status(), path);
  return tokenizer;
}

absl::Status Tokenizer::Save(Env& env, const std::string& path) const { return WriteTextAtomically(env, path, model_); }

absl::StatusOr<Tokenizer> Tokenizer::FromModel(std::string model) {
  const auto not_a_model = [](std::string_view why) {
    return absl::InvalidArgumentError(absl::StrFormat("not a SentencePiece model: %s", why));
  };
  if (const absl::Status s = CheckSentencePieceModel(model); !s.ok()) return not_a_model(std::string(s.message()));
  Tokenizer tokenizer;
  if (const std::string error = tokenizer.pieces_.Load(model); !error.empty()) return not_a_model(error);
  if (tokenizer.eos_id() < 0) return absl::InvalidArgumentError("the tokenizer has no EOS piece");
  tokenizer.crc32c_ = Crc32c(std::as_bytes(std::span(model)));
  tokenizer.model_ = std::move(model);
  return tokenizer;
}

std::vector<int32_t> Tokenizer::Encode(std::string_view text) const {
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 2);
  pieces_.Encode(text, &ids);
  return ids;
}

std::string Tokenizer::Decode(std::span<const int32_t> ids) const {
  std::string text;
  pieces_.Decode(ids, &text);
  return text;
}

}  // namespace strata
