#pragma once
// The optimizer as nodes of the step: gradient norm, clipping and the update over the buckets.

#include "absl/status/statusor.h"
#include "core/mesh/mesh.h"
#include "core/plan/bucket.h"
#include "optim/config.h"

namespace strata {

// Appends to the bucketed graph, in Phase::kStep:
//   - the global gradient norm, output "grad_norm". Square sums of entries sharded on the same axes are added up over all
//     buckets and all-reduced as one scalar; what is replicated on an axis counts once. Without sharded entries there is
//     no collective;
//   - per bucket, one update over flat states "bucket.<name>.exp_avg" and ".exp_avg_sq" (AdamW) or ".momentum" (SGD) and,
//     for bf16 parameters, the f32 ".master" (initial value: the parameters'), in AccumulatorOf(live). Each parameter has
//     views into them of its own shape and layout: "<parameter>.exp_avg", ... , which is what checkpoints hold.
absl::StatusOr<Graph> ApplyOptimizer(Bucketed bucketed, const Mesh& mesh, const OptimConfig& config);

}  // namespace strata
