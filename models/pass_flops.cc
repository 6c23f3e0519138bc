#include "models/pass_flops.h"

#include "models/model.h"

namespace strata {
namespace {

double MatmulWeights(ModelConfig config, int64_t layers) {
  config.layers = layers;
  return static_cast<double>(ModelOf(config.arch).size(config).matmul_weights);
}

PassFlops ProductFlops(double weights) { return {2 * weights, 2 * weights, 2 * weights}; }

}  // namespace

std::array<PartFlops, kBlockParts> BlockFlops(const ModelConfig& config) {
  ModelConfig without = config;
  without.ffn = 0;
  const double head = MatmulWeights(config, 0), block = MatmulWeights(config, 1) - head,
               attention = MatmulWeights(without, 1) - MatmulWeights(without, 0);
  const bool causal = ModelOf(config.arch).attention == AttentionMask::kCausal;
  const double scores = (causal ? 2.0 : 4.0) * static_cast<double>(config.dim) * static_cast<double>(config.seq);
  return {{{ProductFlops(attention), {scores, 2 * scores, 0}}, {ProductFlops(block - attention), {}}}};
}

PassFlops HeadFlops(const ModelConfig& config) { return ProductFlops(MatmulWeights(config, 0)); }

}  // namespace strata
