#pragma once
// The shard pass: from a graph as one rank would run it to the graph that every rank of a mesh runs, with the
// collectives. Data, tensor, sequence and context parallelism are layouts of one algebra; README.md has the rules.

#include <span>

#include "absl/status/statusor.h"
#include "core/graph/graph.h"
#include "parallel/shard/options.h"
#include "parallel/shard/pins.h"

namespace strata {

// `global` holds forward and backward nodes and gradient accumulators (core/graph/autograd.h). In the result every
// TensorSpec, states' too, has its layout; shapes stay global; names, keys, scopes, phases and blocks are kept;
// conversions are CollectiveOps with the scope and block of their first user and the phase of their earliest.
// Placements, by axis: inputs and parameters as pinned, else Replicate. Gradient accumulators as their parameter is
// sharded, else Replicate or Partial. Buffers that the graph updates, Replicate or Partial. Named values, and their
// gradients, as pinned. Outputs as pinned, else not Partial, but "loss*" stays as it comes. An axis of size 1, or
// that no pin names, is Replicate throughout.
// Deterministic: every rank gets the same graph.
// Errors: InvalidArgument: a pin does not fit its tensor, or a node has no legal placement; both name shapes and axis.
absl::StatusOr<Graph> ShardPass(const Graph& global, const Mesh& mesh, std::span<const Pin> pins,
                                const ShardOptions& options = {});

}  // namespace strata
