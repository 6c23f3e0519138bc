#pragma once
// Unicode normalization (UAX #15), by utf8proc.

#include <cstdint>
#include <string>
#include <string_view>

namespace strata {

enum class NormalForm : uint8_t { kNfc, kNfd, kNfkc, kNfkd };

// `text` (whole UTF-8 characters) in that form: itself where it has it at first sight, else a view of *storage.
std::string_view Normalize(NormalForm form, std::string_view text, std::string* storage);

}  // namespace strata
