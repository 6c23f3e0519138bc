#pragma once
// Between an executor's states and a checkpoint's boxes.

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "checkpoint/load_states.h"
#include "checkpoint/reader.h"
#include "checkpoint/writer.h"
#include "core/base/env.h"
#include "core/comm/communicator.h"
#include "launch/job/rank_runner.h"

namespace strata {

std::string MeshText(const Job& job);  // "dp=2 tp=2", "one rank"

// What a rank saves (StatesToSave), as boxes.
struct Snapshot {
  std::vector<SavedBox> boxes;
  std::vector<std::vector<std::byte>> copies;  // of what the host cannot read by address
};
absl::StatusOr<Snapshot> BoxesToSave(Executor& executor, std::span<const PlannedState> states);

// A checkpoint of all ranks, of which `plans` are. `control` spans the world. Collective; the same status on every rank.
// Returns its path.
absl::StatusOr<std::string> SaveCheckpoint(Env& env, const Job& job, std::span<const Plan> plans, Executor& executor,
                                           int rank, Communicator& control, int64_t step, int64_t next_sample);

// Reads every state of the executor's plan that a checkpoint holds, in whatever layout it was saved; each rank reads what
// it stores, replicas too; kForward leaves moments that it has not at zero. `plans` are the job's: all ranks'. Errors: those of
// CheckLoads; DataLoss.
absl::Status LoadStates(CheckpointReader& reader, std::span<const Plan> plans, Executor& executor, LoadFor purpose);

}  // namespace strata
