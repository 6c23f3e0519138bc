#pragma once
// Layer norm over the last dim: y = xhat * weight + bias with xhat = (x - mean) * rstd and
// rstd = 1 / sqrt(mean((x - mean)^2) + eps). Source: Ba et al., "Layer Normalization" (2016).
// x, weight, bias and y share a dtype; the op's outputs mean and rstd [B, S, 1], and sums, are AccumulatorOf it.

#include "core/graph/builder.h"

namespace strata {

Value LayerNorm(GraphBuilder& g, Value x_BSE, Value weight_E, Value bias_E, double eps,
                SourceLoc loc = SourceLoc::Here());

// d x = rstd * (t - mean(t) - xhat * mean(t * xhat)) with t = dy * weight.
Value LayerNormDx(GraphBuilder& g, Value dy_BSE, Value x_BSE, Value weight_E, Value mean_BS1, Value rstd_BS1,
                  SourceLoc loc = SourceLoc::Here());

// Sums over tokens, [E] in AccumulatorOf the dtype of x: d weight of dy * xhat, d bias of dy.
struct LayerNormGrads {
  Value weight_E, bias_E;
};
LayerNormGrads LayerNormDw(GraphBuilder& g, Value dy_BSE, Value x_BSE, Value mean_BS1, Value rstd_BS1,
                           SourceLoc loc = SourceLoc::Here());

double LayerNormEps(const Op& layer_norm);  // for its kernel

}  // namespace strata
