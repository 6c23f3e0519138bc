#pragma once
// Loading a checkpoint into an executor. Saving is saver.h's.

#include <span>
#include <string>

#include "absl/status/status.h"
#include "checkpoint/load_states.h"
#include "checkpoint/reader.h"
#include "core/exec/executor.h"
#include "launch/job/compile.h"

namespace strata {

std::string MeshText(const Job& job);  // "dp=2 tp=2", "one rank"

// Reads every state of the executor's plan that a checkpoint holds, in whatever layout it was saved; each rank reads what
// it stores, replicas too; kForward leaves moments that it has not at zero. `plans` are the job's: all ranks'. Errors: those of
// CheckLoads; DataLoss.
absl::Status LoadStates(CheckpointReader& reader, std::span<const Plan> plans, Executor& executor, LoadFor purpose);

}  // namespace strata
