#pragma once
// Text <-> token ids: SentencePiece byte-pair encoding (Sennrich et al. 2016; Kudo and Richardson 2018).
// A tokenizer trained here gives back any bytes exactly: Decode(Encode(text)) == text, newlines, runs of spaces and
// invalid UTF-8 included; it has no normalization, no dummy prefix, one piece for "\n", one for each byte, no BOS, and
// an EOS that Encode never emits. Any other SentencePiece model loads too, and keeps what its normalizer keeps.
// Immutable after Train or Load; all const calls are thread-safe.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/env.h"
#include "launch/tokenizer/sentencepiece_model.h"

namespace strata {

class Tokenizer {
 public:
  // The same texts and size give the same model, byte for byte. Pieces do not cross whitespace.
  // InvalidArgument: no text, or a vocabulary that is too small or too large for it.
  static absl::StatusOr<Tokenizer> Train(std::span<const std::string_view> texts, int vocab_size);
  static absl::StatusOr<Tokenizer> Load(Env& env, const std::string& path);  // InvalidArgument: not a model, no EOS
  absl::Status Save(Env& env, const std::string& path) const;                // atomically

  std::vector<int32_t> Encode(std::string_view text) const;
  // Ids outside the vocabulary and control ids (EOS) give nothing. Pieces are independent of each other, so text may be
  // decoded as it is generated; a character of several byte pieces is whole once its last byte is there.
  std::string Decode(std::span<const int32_t> ids) const;

  int vocab_size() const { return pieces_.vocab_size(); }
  int32_t eos_id() const { return pieces_.eos_id(); }
  uint32_t crc32c() const { return crc32c_; }  // of the model's bytes: which tokenizer it is

 private:
  static absl::StatusOr<Tokenizer> FromModel(std::string model);

  std::string model_;  // serialized
  uint32_t crc32c_ = 0;
  SentencePieceModel pieces_;
};

}  // namespace strata
