#include "optim/groups.h"

#include <algorithm>

#include "core/base/glob.h"

namespace strata {

double WeightDecay(const OptimConfig& config, std::string_view parameter) {
  const bool exempt = std::any_of(config.no_decay.begin(), config.no_decay.end(),
                                  [&](const std::string& pattern) { return GlobMatches(pattern, parameter); });
  return exempt ? 0 : config.weight_decay;
}

}  // namespace strata
