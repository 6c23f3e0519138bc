#pragma once
// Which parameters decay.

#include <string_view>

#include "optim/config.h"

namespace strata {

// config.weight_decay, or 0 where a pattern of config.no_decay matches the parameter's name. The rank plays no part: norms
// and biases are exempt by the default patterns.
double WeightDecay(const OptimConfig& config, std::string_view parameter);

}  // namespace strata
