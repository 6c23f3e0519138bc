#pragma once
// What VerifyPlans checks of the ranks together: that their calls of each communicator agree, and that nobody waits for ever.

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "core/plan/plan.h"

namespace strata {

struct IssuedCall {
  const CommSpec* comm = nullptr;
  const Program* program = nullptr;
  const Action* action = nullptr;
  const Step* step = nullptr;
};

// Of one program, by rank, each in order. Internal: (1) members of a communicator issue different collectives; (2) what one
// rank sends on a communicator is not, in order, what the other receives; (3) ranks that issue one call after the other,
// each complete only when all its members are there, come to a stop: named with what each of them waits for.
absl::Status VerifyCalls(const std::vector<std::vector<IssuedCall>>& by_rank);

}  // namespace strata
