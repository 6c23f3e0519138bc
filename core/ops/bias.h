#pragma once
// y[..., N] = x[..., N] + bias[N], and the bias's gradient: the sum over all leading dims.
// Sharding: every dim may be sharded, N together with the bias. Partial does not pass: each summand would bring the bias
// along, so the output of a row-parallel linear is reduced before its bias is added.

#include "core/graph/builder.h"

namespace strata {

Value BiasAdd(GraphBuilder& g, Value x_N, Value bias_N, SourceLoc loc = SourceLoc::Here());  // of one floating dtype
Value BiasGrad(GraphBuilder& g, Value dy_N, SourceLoc loc = SourceLoc::Here());  // [N] in AccumulatorOf(dtype)

}  // namespace strata
