#pragma once
// A training run: steps, logs, evaluation, checkpoints, resume.

#include <string>

#include "absl/status/status.h"
#include "core/base/env.h"
#include "launch/cli/cli.h"
#include "launch/config/load_config.h"

namespace strata {

// Errors: as loading, planning and running; Cancelled after an interrupt, once the state is saved (exit code 75).
absl::Status Train(Env& env, const LoadedJob& loaded, const TrainOptions& options);

}  // namespace strata
