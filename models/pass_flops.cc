#include "models/pass_flops.h"

#include "models/model.h"

namespace strata {
namespace {

double MatmulWeights(ModelConfig config, int64_t layers) {
  config.layers = layers;
  return static_cast<double>(ModelOf(config.arch).size(config).matmul_weights);
}

}  // namespace

PassFlops BlockFlops(const ModelConfig& config) {
  const double weights = MatmulWeights(config, 1) - MatmulWeights(config, 0);
  const bool causal = ModelOf(config.arch).attention == AttentionMask::kCausal;
  const double scores = (causal ? 2.0 : 4.0) * static_cast<double>(config.dim) * static_cast<double>(config.seq);
  return {2 * weights + scores, 2 * weights + 2 * scores, 2 * weights};
}

PassFlops HeadFlops(const ModelConfig& config) {
  const double weights = MatmulWeights(config, 0);
  return {2 * weights, 2 * weights, 2 * weights};
}

}  // namespace strata
