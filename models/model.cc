#include "models/model.h"

#include <iterator>

#include "models/bert.h"
#include "models/gpt2.h"
#include "models/llama.h"

namespace strata {

const Model& ModelOf(ModelArch arch) {
  static const Model kModels[] = {LlamaModel(), Gpt2Model(), BertModel(), LlamaModel(), LlamaModel()};  // by ModelArch
  static_assert(std::size(kModels) == std::size(kModelArchNames) && std::size(kModels) == std::size(kArchTraits));
  return kModels[static_cast<size_t>(arch)];
}

double FlopsPerToken(const ModelConfig& c) {
  const Model& model = ModelOf(c.arch);
  const double scores =
      static_cast<double>(c.layers) * static_cast<double>(c.heads * c.head_dim()) * static_cast<double>(c.seq);
  return 6.0 * static_cast<double>(model.size(c).matmul_weights) +
         (model.attention == AttentionMask::kCausal ? 6 : 12) * scores;
}

int LossChunks(const ModelConfig& config) {
  int chunks = 1;
  while (config.seq % (2 * chunks) == 0 && config.seq / (2 * chunks) >= 128) chunks *= 2;
  return chunks;
}

int LossChunksWithin(const ModelConfig& config, int64_t rows, int64_t bytes) {
  int chunks = 1;
  while (config.seq % (2 * chunks) == 0 && rows * (config.seq / chunks) * config.vocab * 2 > bytes) chunks *= 2;
  return chunks;
}

}  // namespace strata
