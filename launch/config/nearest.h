#pragma once
// The known name that a mistyped one was probably meant to be.

#include <span>
#include <string>
#include <string_view>

namespace strata {

// Insertions, deletions, replacements and swaps of neighbours that turn a into b (optimal string alignment).
int EditDistance(std::string_view a, std::string_view b);

// The candidate at the least distance, the first of equals; empty if none is closer than about a third of the name.
std::string NearestName(std::string_view name, std::span<const std::string> candidates);

}  // namespace strata
