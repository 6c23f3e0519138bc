#pragma once
// Tokens one by one, for people.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "launch/tokenizer/tokenizer.h"

namespace strata {

// "id  text\n" for each id, the text with its spaces and line breaks visible.
std::string PieceLines(const Tokenizer& tokenizer, std::span<const int32_t> ids);
// In double quotes, with escapes for what is not printable ASCII or whole UTF-8: "\n", "\xff".
std::string Quoted(std::string_view bytes);

}  // namespace strata
