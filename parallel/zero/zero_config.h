#pragma once
// ZeRO's keys of [parallel], and what they mean on a mesh.

#include <cstdint>

#include "core/base/config.h"
#include "core/mesh/mesh.h"

namespace strata {

// Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models" (SC 2020): which of a job's
// states are sharded over the data-parallel ranks. Stage 1: master weights and moments; 2: gradients too; 3: weights too.
struct ZeroConfig {
  int64_t stage = 0;
  int64_t prefetch = 1;  // buckets gathered ahead of the one in use

  void Describe(ConfigFields& f);
  bool operator==(const ZeroConfig&) const = default;
};

// The mesh axes that shard each kind of flat state; each set holds the next.
struct ZeroAxes {
  AxisSet states = 0, gradients = 0, weights = 0;
};
ZeroAxes AxesOf(const ZeroConfig& config, const Mesh& mesh);

}  // namespace strata
