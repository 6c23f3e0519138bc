#pragma once
// Text <-> token ids, by a model file of one of two kinds, told apart by content:
// - SentencePiece (Kudo and Richardson 2018). One trained here gives back any bytes exactly: Decode(Encode(text)) == text,
//   newlines, runs of spaces and invalid UTF-8 included; it has no normalization, no dummy prefix, one piece for "\n", one
//   for each byte, no BOS, and an EOS that Encode never emits. Any other loads too, and keeps what its normalizer keeps.
// - tokenizer.json, a byte-level BPE (tokenizer_json.h): the ids of Hugging Face's library. Special tokens that stand in
//   the text are found, EOS too. Beside it tokenizer_config.json and generation_config.json are read (special_files.h).
// Immutable after Train or Load; all const calls are thread-safe.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/env.h"
#include "launch/tokenizer/codec.h"
#include "launch/tokenizer/special_files.h"

namespace strata {

// How a tokenizer's file is called where we put one, SentencePiece's or the other.
inline constexpr std::string_view kModelFile = "tokenizer.model", kJsonFile = "tokenizer.json";

// The tokenizer in `folder`: its tokenizer.json if there is one, else its tokenizer.model, there or not.
std::string TokenizerIn(Env& env, const std::string& folder);

class Tokenizer {
 public:
  // SentencePiece. The same texts and size give the same model, byte for byte. Pieces do not cross whitespace.
  // InvalidArgument: no text, or a vocabulary that is too small or too large for it.
  static absl::StatusOr<Tokenizer> Train(std::span<const std::string_view> texts, int vocab_size);
  // `path`: a file, or a folder that has a tokenizer. InvalidArgument: no such file of either kind, or one that is not
  // supported (the error names what); a SentencePiece model without EOS.
  static absl::StatusOr<Tokenizer> Load(Env& env, const std::string& path);
  // Writes the model file and, into the same folder, the files that were read beside it; each atomically.
  absl::Status Save(Env& env, const std::string& path) const;
  std::string_view file_name() const { return file_name_; }  // kModelFile or kJsonFile

  // The ids of a text, with nothing around them. ResourceExhausted: a pattern of the tokenizer.json goes over its limits.
  absl::StatusOr<std::vector<int32_t>> Encode(std::string_view text) const;
  // With what the tokenizer.json's post-processor puts before a text (BOS), unless the text begins so.
  absl::StatusOr<std::vector<int32_t>> EncodePrompt(std::string_view text) const;
  // The same, and behind it what the post-processor puts there, and EOS, once. FailedPrecondition: there is no EOS.
  absl::StatusOr<std::vector<int32_t>> EncodeDocument(std::string_view text) const;
  // Ids outside the vocabulary, and special ones unless they are to be written, give nothing. Pieces are independent of
  // each other, so text may be decoded as it is generated; a character of several pieces is whole once its last is there.
  std::string Decode(std::span<const int32_t> ids, SpecialText special = SpecialText::kLeaveOut) const;

  int vocab_size() const { return codec_->vocab_size(); }
  int32_t bos_id() const { return bos_id_; }  // -1: none
  int32_t eos_id() const { return eos_id_; }  // ends a document; -1: none is known
  bool Stops(int32_t id) const;  // whether generation ends at it: EOS, or another of generation_config.json
  uint32_t crc32c() const { return crc32c_; }  // of the model file's bytes: which tokenizer it is

 private:
  static absl::StatusOr<Tokenizer> FromModel(std::string model);
  static absl::StatusOr<Tokenizer> FromJson(std::string json, std::vector<SpecialFile> beside);

  std::unique_ptr<const Codec> codec_;
  std::string_view file_name_;
  std::string bytes_;  // of the model file
  std::vector<SpecialFile> beside_;
  uint32_t crc32c_ = 0;
  int32_t bos_id_ = -1, eos_id_ = -1;
  std::vector<int32_t> stop_;
  std::vector<int32_t> prefix_, suffix_;  // around a text
};

}  // namespace strata
