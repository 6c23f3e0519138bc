#pragma once
// The last step of a reduce-scatter by all-to-all: the sum of what the ranks sent of one shard.

#include "core/graph/builder.h"

namespace strata {

// [c] from [n, c]: the sum of the local rows in their order, y = ((x_0 + x_1) + x_2) + ..., in float32 (float64 of f64), whatever
// the rows' dtype; nothing is rounded to bf16. The layout of the result is the caller's to set.
Value SumParts(GraphBuilder& g, Value rows, SourceLoc loc = SourceLoc::Here());

}  // namespace strata
