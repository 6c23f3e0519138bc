#pragma once
// What is asked of JSON text from outside before a parser sees it. Pure functions.

#include <string_view>

namespace strata {

// The deepest nesting of objects and arrays, counted without recursion, so that no parser ever sees a deep text. Of text
// that is not JSON: never less than what a parser would go into.
int JsonDepth(std::string_view text);

}  // namespace strata
