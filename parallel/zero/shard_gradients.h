#pragma once
// ZeRO-2: gradients are reduced into this rank's shard at every micro-batch.

#include <span>

#include "absl/status/statusor.h"
#include "core/plan/bucket.h"
#include "parallel/zero/zero_options.h"

namespace strata {

// For every bucket with grad_axes: in place of the accumulations of its parameters' gradients, right after the last of them,
// the gradients of the micro-batch are packed into a flat tensor, in which lowering makes them, reduce-scattered over grad_axes
// (reduce_scatter.h), and added to the flat accumulator, which is Shard(0) on them. So one bucket's gradients are
// whole at a time, more or less. Buckets have their flat states.
absl::StatusOr<Graph> ShardGradients(Graph graph, std::span<const Bucket> buckets, const ZeroOptions& zero,
                                     const Mesh& mesh);

}  // namespace strata
