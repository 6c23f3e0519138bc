#pragma once
// Status helpers. absl::Status is the only error type of the project; nothing throws.

#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace strata {

// The same code with "prefix: " in front of the message.
absl::Status Annotate(const absl::Status& status, std::string_view prefix);

}  // namespace strata

#define STRATA_CONCAT_INNER(a, b) a##b
#define STRATA_CONCAT(a, b) STRATA_CONCAT_INNER(a, b)

// Returns from the enclosing function if `expr` is not OK. Also works where that function returns a StatusOr.
#define RETURN_IF_ERROR(expr)                      \
  do {                                             \
    absl::Status strata_status = (expr);           \
    if (!strata_status.ok()) return strata_status; \
  } while (false)

// ASSIGN_OR_RETURN(auto x, MakeX()): the value, or return the error.
#define ASSIGN_OR_RETURN(lhs, expr) ASSIGN_OR_RETURN_INNER(STRATA_CONCAT(strata_or_, __LINE__), lhs, expr)
#define ASSIGN_OR_RETURN_INNER(tmp, lhs, expr) \
  auto tmp = (expr);                           \
  if (!tmp.ok()) return tmp.status();          \
  lhs = *std::move(tmp)
