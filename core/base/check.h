#pragma once
// STRATA_CHECK(condition): always on, for our own bugs only; prints the expression with file:line and ends the process.
// What the world or the user can cause is an absl::Status instead.

namespace strata {

[[noreturn]] void CheckFailed(const char* expression, const char* file, int line);

}  // namespace strata

#define STRATA_CHECK(condition)                                              \
  do {                                                                       \
    if (!(condition)) ::strata::CheckFailed(#condition, __FILE__, __LINE__); \
  } while (false)
