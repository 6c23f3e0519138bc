#pragma once
// ZeRO-3: weights are gathered before they are used, and dropped after.

#include <set>
#include <span>

#include "absl/status/statusor.h"
#include "parallel/zero/flat_weights.h"
#include "parallel/zero/zero_options.h"

namespace strata {

// In place of reading a parameter of a bucket that is sharded: per bucket and pass (forward, backward), one all-gather into
// memory that lives until its last use in that pass, and views of it. It stands before the first use of the bucket that is used
// zero.prefetch buckets earlier in the pass: a gather may overlap with so many blocks, and so many buckets are whole beside the
// one in use. What the backward pass recomputes uses the backward pass's weights. The gradient of an embedding gathers nothing:
// of the table it wants the shape.
// With zero.resident, one all-gather a bucket and stage in Phase::kUnshard serves both passes and several micro-batches.
// With zero.weight_bits, quantised blocks are sent, and every rank computes with what comes back of them, its own shard's too.
// With zero.secondary, forward leaves a slice of what it gathered, and backward gathers that over these axes.
absl::StatusOr<Graph> GatherWeights(Graph graph, std::span<const FlatWeights> weights, const ZeroOptions& zero);

// The parameters of two dims whose values no backward node reads: tables, and the head where forward makes its gradient. Beside
// others in a bucket they would be gathered for those.
std::set<StateId> ForwardOnly(const Graph& graph);

}  // namespace strata
