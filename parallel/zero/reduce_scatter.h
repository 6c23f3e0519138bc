#pragma once
// From a rank's gradients of a bucket to its shard of their sum.

#include "core/graph/builder.h"
#include "core/mesh/mesh.h"
#include "parallel/zero/zero_options.h"

namespace strata {

// `flat` is Partial on `axes`, and perhaps others, or sharded on some; the result is summed over `axes` and Shard(0) on them.
// Exact: one reduce-scatter in place, in the dtype of `flat`; or by ScatterBy::kAllToAll an exchange of shards, in bf16 if asked
// for, and a sum in float32, which is what comes of bf16 gradients then. Quantised (ZeRO++ qgZ): an all-to-all within zero.inner of quantised blocks, their sum,
// and the same between the others, so that each element is quantised twice, and 1 / size(inner) of them cross slow links. An
// element of the sum is off by at most the sum over members of half their blocks' scales, and half the scale of the partial
// sums in the second. Sums are in the order of the ranks.
Value ReduceScatter(GraphBuilder& g, Value flat, AxisSet axes, const ZeroOptions& zero, const Mesh& mesh);

}  // namespace strata
