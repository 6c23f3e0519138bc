#pragma once
// The optimizer as nodes of the step: gradient norm, clipping and the update over the buckets.

#include "absl/status/statusor.h"
#include "core/mesh/mesh.h"
#include "core/plan/bucket.h"
#include "optim/config.h"

namespace strata {

// Appends to the bucketed graph, in Phase::kStep:
//   - the global gradient norm, output "grad_norm". Square sums of entries sharded on the same axes are added up over all
//     buckets and all-reduced as one scalar; what is replicated on an axis counts once. A bucket's shard_axes shard its entries. Without any there is
//     no collective. In a pipeline the ranks of all stages add up theirs, and all have the whole norm;
//   - per bucket, one update over flat states "bucket.<name>.exp_avg" and ".exp_avg_sq" (AdamW) or ".momentum" (SGD) and,
//     for bf16 parameters, the f32 ".master" (initial value: the parameters'), in AccumulatorOf(live), or in halves the lower ones,
//     low16. Each parameter has views into them of its own shape and layout: "<parameter>.exp_avg", ... , which is what checkpoints hold. Where the
//     bucket has shard_axes, states and update are this rank's shard, and one all-gather brings the new live weights
//     together, in place.
//   - where `loss` (summed over the step, whole on every rank) is given, a Guard between norm and updates, output
//     "guarded_norm": NaN for a step whose updates are skipped.
absl::StatusOr<Graph> ApplyOptimizer(Bucketed bucketed, const Mesh& mesh, const OptimConfig& config, Value loss = {},
                                     MasterFormat master = MasterFormat::kFloat32);

}  // namespace strata
