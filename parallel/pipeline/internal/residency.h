#pragma once
// Where a rank gathers the whole parameters of a stage and gives them up again (ZeRO-3).

#include <vector>

#include "absl/status/statusor.h"
#include "core/plan/plan.h"

namespace strata {

// The list with kUnshard and kReshard added, so that every compute action finds its stage whole and at most
// `resident_stages` are whole at a time. What has to go is what is needed again latest (Belady, 1966). A stage is gathered
// one compute action early where there is room for it.
// Errors: InvalidArgument where an overlapped pair needs more stages than may be resident.
absl::StatusOr<std::vector<Action>> AddResidency(const std::vector<Action>& list, int resident_stages);

}  // namespace strata
