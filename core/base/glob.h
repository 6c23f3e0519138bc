#pragma once
// Name patterns of tables and configs.

#include <string_view>

namespace strata {

// '*' in `pattern` is any text, dots and nothing too; every other character is itself.
bool GlobMatches(std::string_view pattern, std::string_view text);

}  // namespace strata
