#pragma once
// The 256 printable characters that stand for bytes in a byte-level vocabulary (GPT-2: Radford et al. 2019): the bytes
// 21-7E, A1-AC and AE-FF are the characters of the same number, the other 68 are U+0100, U+0101, ... in their order.

#include <optional>
#include <string>
#include <string_view>

namespace strata {

// The bytes that `piece` spells; nullopt if a character of it stands for none.
std::optional<std::string> BytesOfPiece(std::string_view piece);
// How a vocabulary spells `bytes`.
std::string PieceOfBytes(std::string_view bytes);

}  // namespace strata
