#include "models/llama_init.h"

#include <cmath>

#include "models/parts.h"

namespace strata {

InitSpec LlamaInit(const ModelConfig& config, std::string_view parameter) {
  if (EndsWith(parameter, "norm.weight")) return {1, 0};
  if (EndsWith(parameter, ".bias")) return {0, 0};
  const bool writes_residual = EndsWith(parameter, ".wo") || EndsWith(parameter, ".down");
  return {0, config.init_std / (writes_residual ? std::sqrt(2.0 * static_cast<double>(config.layers)) : 1.0)};
}

}  // namespace strata
