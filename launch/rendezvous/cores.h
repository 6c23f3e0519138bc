#pragma once
// How many threads a rank may compute with.

#include "absl/status/statusor.h"
#include "core/comm/communicator.h"

namespace strata {

// This process's cores, shared out among the ranks of this machine that may use just the same ones: threads of a process,
// processes that are not bound. Ranks that were bound to cores of their own keep these. At least 1. Collective.
absl::StatusOr<int> CoresOfRank(Communicator& everyone);

}  // namespace strata
