#pragma once
// Initial values: normal(0, init_std) for all matrices, those that write the residual stream (wo, down) divided by
// sqrt(2 layers) (GPT-2, Radford et al. 2019, sec. 2.3); ones for norm weights, zeros for biases.

#include <string_view>

#include "models/model.h"

namespace strata {

InitSpec LlamaInit(const ModelConfig& config, std::string_view parameter);

}  // namespace strata
