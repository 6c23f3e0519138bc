#include "launch/tokenizer/byte_alphabet.h"

#include <array>
#include <cstdint>

#include "launch/tokenizer/utf8.h"

namespace strata {
namespace {

constexpr bool IsItself(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr std::array<char32_t, 256> MakeAlphabet() {
  std::array<char32_t, 256> alphabet{};
  char32_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) alphabet[byte] = IsItself(byte) ? static_cast<char32_t>(byte) : next++;
  return alphabet;
}
constexpr std::array<char32_t, 256> kAlphabet = MakeAlphabet();

constexpr std::array<int16_t, 0x144> MakeBytes() {
  std::array<int16_t, 0x144> bytes{};
  bytes.fill(-1);
  for (int byte = 0; byte < 256; ++byte) bytes[kAlphabet[byte]] = static_cast<int16_t>(byte);
  return bytes;
}
constexpr std::array<int16_t, 0x144> kBytes = MakeBytes();

}  // namespace

std::optional<std::string> BytesOfPiece(std::string_view piece) {
  std::string bytes;
  while (!piece.empty()) {
    const size_t length = CharacterLength(piece);
    const char32_t c = length == 0 ? 0 : CodePoint(piece);
    if (c >= kBytes.size() || kBytes[c] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(kBytes[c]));
    piece.remove_prefix(length);
  }
  return bytes;
}

std::string PieceOfBytes(std::string_view bytes) {
  std::string piece;
  for (const char byte : bytes) {
    const char32_t c = kAlphabet[static_cast<uint8_t>(byte)];  // below U+0800: two bytes of UTF-8 at most
    if (c < 0x80) {
      piece.push_back(static_cast<char>(c));
    } else {
      piece.push_back(static_cast<char>(0xC0 | c >> 6));
      piece.push_back(static_cast<char>(0x80 | (c & 0x3f)));
    }
  }
  return piece;
}

}  // namespace strata
