#include "parallel/zero/zero_options.h"

namespace strata {

ZeroOptions OptionsOf(const ZeroConfig& config, const Mesh& mesh) {
  const AxisSet all = mesh.Find("dp"), inner = mesh.Find("dp.i");
  // One node: inner ranks are all; every rank its own node: none share one.
  const AxisSet fast = inner != 0 ? inner : config.inner > 1 ? all : AxisSet{0};
  const auto from = [&](int64_t stage, ZeroScope largest) {
    return config.stage < stage ? AxisSet{0} : config.scope == ZeroScope::kAll || config.scope == largest ? all : fast;
  };
  const auto bits = [](Wire w) -> std::optional<QuantBits> {
    if (w == Wire::kExact || w == Wire::kBf16) return std::nullopt;
    return w == Wire::kInt8 ? QuantBits::k8 : QuantBits::k4;
  };
  return {.states = from(1, ZeroScope::kStates),
          .gradients = from(2, ZeroScope::kAll),
          .weights = from(3, ZeroScope::kAll),
          .inner = inner,
          .secondary = config.secondary ? inner : AxisSet{0},
          .prefetch = config.prefetch,
          .weight_bits = bits(config.weights),
          .gradient_bits = bits(config.gradients),
          .scatter_by = config.scatter_by,
          .bf16_gradients = config.gradients == Wire::kBf16};
}

}  // namespace strata
