#pragma once
// Initial values: normal(0, init_std) for all matrices, those that write the residual stream (wo, down) divided by
// sqrt(2 layers) (GPT-2, Radford et al. 2019, sec. 2.3); ones for norm weights.

#include <string_view>

#include "models/llama_config.h"

namespace strata {

struct InitSpec {
  double mean = 0, std = 0;
};
InitSpec LlamaInit(const LlamaConfig& config, std::string_view parameter);

}  // namespace strata
