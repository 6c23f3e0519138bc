#pragma once
// y[..., N] = x[..., K] W[N, K]^T, and its two gradients. Leading dims, in a model [B, S], are rows; W is stored as
// checkpoints store it. Operands have one dtype; bf16 accumulates in f32.
// Sharding: rows, and N or K, may be sharded; a sharded contracted dim gives Partial. Partial passes: all are bilinear.

#include <memory>

#include "core/graph/builder.h"
#include "core/graph/op.h"

namespace strata {

Value Linear(GraphBuilder& g, Value x_K, Value weight_NK, SourceLoc loc = SourceLoc::Here());
Value LinearDx(GraphBuilder& g, Value dy_N, Value weight_NK, SourceLoc loc = SourceLoc::Here());  // [..., K]
// [N, K] in AccumulatorOf(dtype).
Value LinearDw(GraphBuilder& g, Value dy_N, Value x_K, SourceLoc loc = SourceLoc::Here());
// The op of it whose result is rounded once to bf16, of bf16 operands.
std::shared_ptr<const Op> RoundedLinearDw();

}  // namespace strata
