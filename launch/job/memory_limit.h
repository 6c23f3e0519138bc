#pragma once
// memory.limit: the least recompute that fits it, and what to do where nothing does.

#include <functional>
#include <span>

#include "absl/status/statusor.h"
#include "launch/job/compile.h"

namespace strata {

// "none", "block in the first 3 of 12 blocks, selective in the next 9".
std::string ToString(const RecomputeBlocks& blocks, int64_t layers);

// Tries, from less recompute to more, selective in ever more blocks, then block in ever more of them, by binary search on
// the bytes of the plan. Errors: ResourceExhausted as CheckLimit where the most does not fit.
using CompileWith = std::function<absl::StatusOr<Job>(const RecomputeBlocks&)>;
absl::StatusOr<Job> CompileWithinLimit(const JobConfig& config, const KernelTable& kernels, const CompileWith& compile);

// ResourceExhausted, with the memory table and the changes of one key that would fit, cheapest in time first, where a
// rank's arena is larger than memory.limit.
absl::Status CheckLimit(const Job& job, std::span<const Plan> plans, const KernelTable& kernels);

}  // namespace strata
