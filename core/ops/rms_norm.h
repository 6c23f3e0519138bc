#pragma once
// RMS norm over the last dim: y = x * rstd * weight with rstd = 1 / sqrt(mean(x^2) + eps).
// Source: Zhang and Sennrich, "Root Mean Square Layer Normalization" (2019).
// x[..., E], weight[E] and y share a dtype; the op's second output rstd[..., 1] and sums are AccumulatorOf it. In a model x
// is [B, S, E], or [B, S, H, D] where each head has a norm of its own.
// Sharding: every dim but the last may be sharded.

#include "core/graph/builder.h"

namespace strata {

Value RmsNorm(GraphBuilder& g, Value x_E, Value weight_E, double eps, SourceLoc loc = SourceLoc::Here());

// d x = rstd * (t - x * rstd^2 * mean(t * x)) with t = dy * weight.
Value RmsNormDx(GraphBuilder& g, Value dy_E, Value x_E, Value weight_E, Value rstd_1,
                SourceLoc loc = SourceLoc::Here());

// d weight[E] = sum over all leading dims of dy * x * rstd; AccumulatorOf the dtype of x.
Value RmsNormDw(GraphBuilder& g, Value dy_E, Value x_E, Value rstd_1, SourceLoc loc = SourceLoc::Here());

// 1 / sqrt(a + eps), elementwise: the plain op of RmsNorm's decomposition.
Value Rsqrt(GraphBuilder& g, Value a, double eps, SourceLoc loc = SourceLoc::Here());

double EpsOf(const Op& op);  // of an "rms_norm" or "rsqrt"; for their kernels

}  // namespace strata
