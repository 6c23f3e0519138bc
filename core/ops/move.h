#pragma once
// Ops that move, cut and join, cast, sum and repeat. Sharding, where not said otherwise: every dim that is neither cut,
// joined, summed nor repeated may be sharded; Partial passes (all of these but Cast are linear).

#include <vector>

#include "core/graph/builder.h"
#include "core/graph/op.h"

namespace strata {

// Views. A shard of the split dim is a shard of its outer part, and back: heads of [B, S, H * D] are dim 2 of
// [B, S, H, D].
Value SplitDim(GraphBuilder& g, Value x, int dim, int64_t inner,
               SourceLoc loc = SourceLoc::Here());                                      // n -> n / inner, inner
Value MergeDims(GraphBuilder& g, Value x, int dim, SourceLoc loc = SourceLoc::Here());  // dims dim and dim + 1

// The part-th of `parts` equal pieces along `dim`; any dtype. PadSlice, its gradient, puts a piece back among zeros.
Value Slice(GraphBuilder& g, Value x, int dim, int part, int parts, SourceLoc loc = SourceLoc::Here());
Value PadSlice(GraphBuilder& g, Value piece, int dim, int part, int parts, SourceLoc loc = SourceLoc::Here());
// Values of one shape and dtype, any dtype.
Value Concat(GraphBuilder& g, std::vector<Value> values, int dim, SourceLoc loc = SourceLoc::Here());

// To another floating dtype; x itself where it has that dtype. Rounds, so Partial does not pass.
Value Cast(GraphBuilder& g, Value x, DType dtype, SourceLoc loc = SourceLoc::Here());

// Sums in float64, in index order; the result has x's dtype. A sharded summed dim gives Partial.
Value ReduceSum(GraphBuilder& g, Value x, int dim, SourceLoc loc = SourceLoc::Here());  // removes dim
Value ReduceSumAll(GraphBuilder& g, Value x, SourceLoc loc = SourceLoc::Here());        // shape []
// Their gradients: x repeated along the dim that `like` has and x has not. Of `like` only the shape is used.
Value Broadcast(GraphBuilder& g, Value x, Value like, int dim, SourceLoc loc = SourceLoc::Here());
Value BroadcastAll(GraphBuilder& g, Value scalar, Value like, SourceLoc loc = SourceLoc::Here());

// For the kernels of ops named slice and pad_slice; concat, reduce_sum and broadcast (-1: all dims).
struct Piece {
  int dim = 0, part = 0, parts = 1;
};
Piece PieceOf(const Op& op);
int DimOf(const Op& op);

}  // namespace strata
