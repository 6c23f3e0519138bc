#pragma once
// Buckets and the once-a-step collectives of data parallelism. The only maker of gradient collectives: a parameter's
// gradient is Partial on the axes that shard the tokens, by the placement algebra, and its bucket is reduced over them.

#include "absl/status/statusor.h"
#include "core/mesh/mesh.h"
#include "core/plan/bucket.h"
#include "parallel/zero/zero_options.h"

namespace strata {

// Groups the parameters that have a gradient accumulator ("grad.<name>") by (block, or first part of the name; dtype; axes
// on which the gradient is Partial), in order of declaration; makes their states views into flat states
// "bucket.<group>.params" and ".grads"; appends kStep nodes a bucket, in place: read, and one all-reduce over reduce_axes, or
// where the optimizer's states are sharded a reduce-scatter over those axes and an all-reduce over the others. Where `zero`
// shards them, gradients are reduced at every micro-batch (shard_gradients.h) and weights gathered for every use
// (gather_weights.h). Runs on local shapes, after the shard pass; nodes are numbered anew.
absl::StatusOr<Bucketed> BucketPass(Graph local, const Mesh& mesh, const ZeroOptions& zero = {});

// Appends, for every kBuffer state (a running sum such as "loss"), kStep nodes that all-reduce it over the axes on which it
// is Partial, and the graph output of the state's name.
absl::StatusOr<Graph> ReduceBuffers(Graph local);

}  // namespace strata
