#pragma once
// What tests of pipeline schedules share.

#include "parallel/pipeline/schedule.h"
#include "parallel/pipeline/simulate.h"

namespace strata::testing {

// A full stage, all chunks of a rank, takes 1 for F, I and W each; no communication.
inline StageDurations UnitStages(const Schedule& s) {
  const double t = 1.0 / s.chunks;
  return StageDurations::Uniform(s.stages(), {.forward = t, .input_grad = t, .weight_grad = t});
}

}  // namespace strata::testing
