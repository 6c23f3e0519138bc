#pragma once
// Checks of the groups that ranks connect.

#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "core/comm/communicator.h"

namespace strata::internal {

std::string ToString(const CommSpec& spec);  // "dp of ranks 0, 2"

// InvalidArgument unless the ranks are distinct ones of `size`, at least one; or it is CommSpec{}: no group in this round.
absl::Status CheckSpec(const CommSpec& spec, int size);

// Whether two groups may be connected in one round: equal, or without a common rank. Else Internal.
absl::Status CheckTogether(const CommSpec& a, const CommSpec& b);

// Of one round of Connect() calls, by rank: all of the above, and every member of a group names it.
absl::Status CheckRound(std::span<const CommSpec> named);

}  // namespace strata::internal
