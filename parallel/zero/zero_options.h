#pragma once
// What ZeRO's keys mean on a mesh.

#include <optional>

#include "core/mesh/mesh.h"
#include "core/ops/quantize.h"
#include "parallel/zero/zero_config.h"

namespace strata {

struct ZeroOptions {
  // Axes that shard each kind of flat state; each set holds the next, and is the first of the one before in mesh order.
  AxisSet states = 0, gradients = 0, weights = 0;
  AxisSet inner = 0;      // fast links; 0: all are alike
  AxisSet secondary = 0;  // backward gathers over these from a second shard that forward leaves; 0: as forward does
  int64_t prefetch = 1;
  // A stage's weights are gathered once for several micro-batches: in Phase::kUnshard, dropped by the action kReshard.
  bool resident = false;
  std::optional<QuantBits> weight_bits, gradient_bits;  // none: as they are
  ScatterBy scatter_by = ScatterBy::kRing;
  bool bf16_gradients = false;  // sent so
};
ZeroOptions OptionsOf(const ZeroConfig& config, const Mesh& mesh);

}  // namespace strata
