#pragma once
// A fused op like those of core/ops/fused.h, for residual streams that biases are added to.

#include "core/ops/fused.h"

namespace strata {

// LayerNormBwd, and the sum of its dx over all dims but the last in the accumulator dtype: the gradient of a bias that was added to x
// (BiasGrad of dx; kernels may add dx before it is rounded).
struct NormGradsAndSum {
  NormGrads norm;
  Value dx_sum_E;
};
NormGradsAndSum LayerNormBwdSum(GraphBuilder& g, Value dy_BSE, Value x_BSE, Value w_E, Value mean_BS1, Value rstd_BS1,
                                Value r_BSE, SourceLoc loc = SourceLoc::Here());

}  // namespace strata
