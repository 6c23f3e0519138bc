#include "launch/tokenizer/pieces.h"

#include "absl/strings/str_format.h"
#include "launch/tokenizer/utf8.h"

namespace strata {

std::string PieceLines(const Tokenizer& tokenizer, std::span<const int32_t> ids) {
  std::string lines;
  for (const int32_t id : ids) {
    lines += absl::StrFormat("%7d  %s\n", id, Quoted(tokenizer.Decode({&id, 1}, SpecialText::kWrite)));
  }
  return lines;
}

std::string Quoted(std::string_view bytes) {
  std::string text = "\"";
  while (!bytes.empty()) {
    const size_t length = CharacterLength(bytes);
    const char c = bytes[0];
    if (c == '\n') {
      text += "\\n";
    } else if (c == '"' || c == '\\') {
      text += {'\\', c};
    } else if (length == 0 || (length == 1 && (c < ' ' || c == 0x7f))) {
      text += absl::StrFormat("\\x%02x", static_cast<uint8_t>(c));
    } else {
      text += bytes.substr(0, length);
    }
    bytes.remove_prefix(length == 0 ? 1 : length);
  }
  return text + "\"";
}

}  // namespace strata
