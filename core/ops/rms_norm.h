#pragma once
// RMS norm over the last dim: y = x * rstd * weight with rstd = 1 / sqrt(mean(x^2) + eps).
// Source: Zhang and Sennrich, "Root Mean Square Layer Normalization" (2019).
// x, weight and y share a dtype; the op's second output rstd[B, S, 1] and sums are AccumulatorOf it.

#include "core/graph/builder.h"

namespace strata {

Value RmsNorm(GraphBuilder& g, Value x_BSE, Value weight_E, double eps, SourceLoc loc = SourceLoc::Here());

// d x = rstd * (t - x * rstd^2 * mean(t * x)) with t = dy * weight.
Value RmsNormDx(GraphBuilder& g, Value dy_BSE, Value x_BSE, Value weight_E, Value rstd_BS1,
                SourceLoc loc = SourceLoc::Here());

// d weight[E] = sum over tokens of dy * x * rstd; AccumulatorOf the dtype of x.
Value RmsNormDw(GraphBuilder& g, Value dy_BSE, Value x_BSE, Value rstd_BS1, SourceLoc loc = SourceLoc::Here());

// 1 / sqrt(a + eps), elementwise: the plain op of RmsNorm's decomposition.
Value Rsqrt(GraphBuilder& g, Value a, double eps, SourceLoc loc = SourceLoc::Here());

double EpsOf(const Op& op);  // of an "rms_norm" or "rsqrt"; for their kernels

}  // namespace strata
