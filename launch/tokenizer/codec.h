#pragma once
// One kind of tokenizer file, loaded: what a Tokenizer encodes and decodes with. Knows no Abseil, as SentencePiece's
// headers cannot be beside its string_view; errors are strings (empty: none).

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace strata {

enum class SpecialText : uint8_t { kLeaveOut, kWrite };  // of special tokens (EOS, BOS, ...) when ids become text

// Immutable once loaded; the calls are thread-safe.
class Codec {
 public:
  virtual ~Codec() = default;

  virtual std::string Encode(std::string_view text, std::vector<int32_t>* ids) const = 0;  // appends; an error or ""
  // Appends. Ids that are no piece give nothing.
  virtual void Decode(std::span<const int32_t> ids, SpecialText special, std::string* text) const = 0;
  virtual int vocab_size() const = 0;  // the largest id, and 1
};

}  // namespace strata
