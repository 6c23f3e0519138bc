#pragma once
// Between an executor's states and a checkpoint's boxes.

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "checkpoint/reader.h"
#include "checkpoint/writer.h"
#include "core/base/env.h"
#include "core/comm/communicator.h"
#include "launch/job/rank_runner.h"

namespace strata {

std::string MeshText(const Job& job);  // "dp=2 tp=2", "one rank"

// What this rank saves: parameters, master weights and moments, by parameter; where a tensor is replicated along an axis,
// the rank at coordinate 0 saves it.
struct Snapshot {
  std::vector<SavedBox> boxes;
  std::vector<std::vector<std::byte>> copies;  // of what the host cannot read by address
};
absl::StatusOr<Snapshot> BoxesToSave(const Job& job, Executor& executor, int rank);

// A checkpoint of all ranks. `control` spans the world. Collective; the same status on every rank. Returns its path.
absl::StatusOr<std::string> SaveCheckpoint(Env& env, const Job& job, Executor& executor, int rank,
                                           Communicator& control, int64_t step, int64_t next_sample);

// Reads every state of the plan that a checkpoint holds. Errors: InvalidArgument where the checkpoint was written in
// another layout (`match` kLayout), also where a tensor differs; NotFound where one is missing, DataLoss.
enum class Match : uint8_t { kLayout, kAny };
absl::Status LoadStates(CheckpointReader& reader, const Job& job, Executor& executor, Match match);

}  // namespace strata
