#pragma once
// A job of one rank in this process: evaluation, generation.

#include "absl/functional/function_ref.h"
#include "launch/job/back_end.h"
#include "launch/job/compile.h"
#include "launch/job/rank_runner.h"

namespace strata {

// Plans the job, opens the device, and gives `body` the plan and a runner without values, which it closes afterwards.
absl::Status RunAlone(const BackEnd& back_end, const Job& job,
                      absl::FunctionRef<absl::Status(const Plan& plan, RankRunner& runner)> body);

}  // namespace strata
