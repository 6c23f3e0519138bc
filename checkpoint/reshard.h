#pragma once
// Rewrites a checkpoint: the same tensors, cut and laid out as another job would, in other files.

#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "checkpoint/reader.h"
#include "core/base/env.h"
#include "core/plan/plan.h"

namespace strata {

struct ReshardTarget {
  std::string mesh;                           // CheckpointMeta::mesh of the result
  std::vector<std::vector<TensorBox>> files;  // over all files each tensor of the checkpoint exactly once
};

// As the ranks of a job would save it. InvalidArgument, naming them, where the checkpoint's tensors are not the job's, in
// shape and dtype.
absl::StatusOr<ReshardTarget> TargetOfPlans(const CheckpointReader& reader, std::span<const Plan> plans,
                                            std::string mesh);

// As `files` files (1 to kMaxFiles) of equal size, up to an element and HDF5's own bytes.
absl::StatusOr<ReshardTarget> TargetOfFiles(const CheckpointReader& reader, int files);

// Writes the checkpoint of `reader` as `to`, file by file, through memory of some blocks. What is read is checked, what is
// written is read back. `to` appears whole at the end (until then to + ".tmp-0"), or not at all. One at a time for one `to`.
// Errors: AlreadyExists; those of CheckpointReader::Read and ShardWriter; InvalidArgument for a target that is no tiling.
absl::Status Reshard(Env& env, CheckpointReader& reader, std::string to, const ReshardTarget& target);

}  // namespace strata
