#pragma once
// The loss of a checkpoint on token files, on one rank: any layout's checkpoint loads.

#include <string>

#include "absl/status/statusor.h"
#include "core/base/env.h"
#include "launch/config/job_config.h"

namespace strata {

struct EvalReport {
  int64_t step = 0;    // of the checkpoint
  double loss = 0;     // nats a token
  int64_t tokens = 0;  // targets
};

// On eval.batches global batches of `prefix`, or all of it where that is 0, as the evaluations of a training run.
// Errors: of the checkpoint (LoadStates), the token files (Loader::Create) and of running.
absl::StatusOr<EvalReport> EvaluateCheckpoint(Env& env, const JobConfig& config, const std::string& checkpoint,
                                              const std::string& prefix);

}  // namespace strata
