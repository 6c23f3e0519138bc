#include "parallel/zero/zero_config.h"

namespace strata {

void ZeroConfig::Describe(ConfigFields& f) {
  f.Add("zero", stage,
        {.doc = "shard over dp: 1 = optimizer states, 2 = and gradients, 3 = and weights; 0 = nothing",
         .min = 0,
         .max = 3});
  f.Add("zero_prefetch", prefetch,
        {.doc = "zero = 3: blocks whose weights are gathered ahead of the one in use; fewer where memory.limit says so",
         .min = 0,
         .max = 64});
}

ZeroAxes AxesOf(const ZeroConfig& config, const Mesh& mesh) {
  const AxisSet data = mesh.Find("dp");
  const auto from = [&](int64_t stage) { return config.stage >= stage ? data : AxisSet{0}; };
  return {.states = from(1), .gradients = from(2), .weights = from(3)};
}

}  // namespace strata
