#pragma once
// UTF-8 (RFC 3629), one character at a time.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace strata {

// Length of the character at the start of `text`; 0 if there is none.
inline size_t CharacterLength(std::string_view text) {
  const auto byte = [&](size_t i) { return i < text.size() ? static_cast<uint8_t>(text[i]) : uint8_t{0}; };
  const auto continues = [&](size_t i) { return (byte(i) & 0xC0) == 0x80; };
  if (text.empty()) return 0;
  const uint8_t first = byte(0);
  if (first < 0x80) return 1;
  if (first < 0xC2 || first > 0xF4) return 0;
  if (first < 0xE0) return continues(1) ? 2 : 0;
  const uint8_t low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;   // no overlong forms
  const uint8_t high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;  // no surrogates, none over U+10FFFF
  if (byte(1) < low || byte(1) > high || !continues(2)) return 0;
  if (first < 0xF0) return 3;
  return continues(3) ? 4 : 0;
}

// Bytes at the start of `text` that are whole characters.
inline size_t ValidPrefix(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    const size_t length = static_cast<uint8_t>(text[at]) < 0x80 ? 1 : CharacterLength(text.substr(at));
    if (length == 0) break;
    at += length;
  }
  return at;
}

// The code point of the character at the start of `text`, which is whole.
inline char32_t CodePoint(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<char32_t>(static_cast<uint8_t>(text[i])); };
  const size_t length = CharacterLength(text);
  if (length == 1) return byte(0);
  char32_t code = byte(0) & (0x7fu >> length);
  for (size_t i = 1; i < length; ++i) code = code << 6 | (byte(i) & 0x3f);
  return code;
}

// Where the last character of `text` begins. `text` is whole characters, and not empty.
inline size_t LastCharacter(std::string_view text) {
  size_t at = text.size() - 1;
  while (at > 0 && (static_cast<uint8_t>(text[at]) & 0xC0) == 0x80) --at;
  return at;
}

// Unicode's property White_Space.
inline bool IsWhiteSpace(char32_t c) {
  constexpr char32_t kRest[] = {0x20, 0x85, 0xA0, 0x1680, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000};
  return (c >= 0x9 && c <= 0xD) || (c >= 0x2000 && c <= 0x200A) ||
         std::find(std::begin(kRest), std::end(kRest), c) != std::end(kRest);
}

}  // namespace strata
