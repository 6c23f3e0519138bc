#pragma once
// SentencePiece behind the standard library: its headers and Abseil's string_view cannot be in one translation unit, so
// nothing here or in the .cc knows Abseil, and errors are strings (empty: none). tokenizer.h is what others use.

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "launch/tokenizer/codec.h"

namespace sentencepiece {
class SentencePieceProcessor;
}

namespace strata {

class SentencePieceModel final : public Codec {
 public:
  SentencePieceModel();
  ~SentencePieceModel() override;
  SentencePieceModel(SentencePieceModel&&) noexcept;
  SentencePieceModel& operator=(SentencePieceModel&&) noexcept;

  // Trains on `texts` and fills *model with the serialized model. Returns an error or "".
  static std::string Train(std::span<const std::string_view> texts, int vocab_size, std::string* model);

  // Parses a serialized model. Returns an error or "". The calls below need a loaded model and are thread-safe.
  std::string Load(const std::string& model);

  std::string Encode(std::string_view text, std::vector<int32_t>* ids) const override;
  void Decode(std::span<const int32_t> ids, SpecialText special, std::string* text) const override;
  int vocab_size() const override { return static_cast<int>(text_of_.size()); }
  int eos_id() const { return eos_id_; }  // -1: none

 private:
  std::string EncodeRun(std::string_view run, std::vector<int32_t>* ids) const;

  std::unique_ptr<sentencepiece::SentencePieceProcessor> processor_;
  std::vector<std::string> text_of_;       // of each id: what it adds to the decoded text
  std::vector<bool> special_;              // of each id: control or unknown, which no text becomes
  std::array<int32_t, 256> id_of_byte_{};  // byte fallback pieces; -1: the model lacks it
  int32_t newline_id_ = -1;                // the user-defined piece "\n"
  int32_t eos_id_ = -1;
  bool exact_ = false;  // text may be cut at newlines, and at what SentencePiece would not give back, without a trace
};

}  // namespace strata
