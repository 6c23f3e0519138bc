#pragma once
// ZeRO's keys of [parallel]. What they mean on a mesh: zero_options.h.

#include <cstdint>
#include <string_view>
#include <vector>

#include "core/base/config.h"
#include "core/mesh/mesh.h"

namespace strata {

enum class ZeroScope : uint8_t { kAll, kInner, kStates };
inline constexpr std::string_view kZeroScopeNames[] = {"all", "inner", "states"};
enum class Wire : uint8_t { kExact, kInt8, kInt4, kBf16 };
inline constexpr std::string_view kWeightWireNames[] = {"exact", "int8"};
inline constexpr std::string_view kGradientWireNames[] = {"exact", "int8", "int4", "bf16"};
// How gradients that are not quantised come to their shard: by the transport's reduce-scatter, which adds in the dtype that it
// sends; or by an all-to-all of the shards, which each rank then adds up in float32, in the order of the ranks. So they may be
// sent in bf16, rounded once.
enum class ScatterBy : uint8_t { kRing, kAllToAll };
inline constexpr std::string_view kScatterByNames[] = {"ring", "all-to-all"};

// Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models" (SC 2020): which of a job's
// states are sharded over the data-parallel ranks. Stage 1: master weights and moments; 2: gradients too; 3: weights too.
// The rest is for links of two speeds: `inner` neighbouring ranks (of a node) have fast ones.
// Wang et al., "ZeRO++" (arXiv:2306.10209): secondary is its hpZ, weights int8 its qwZ, gradients int8 and int4 its qgZ.
// Scope inner is MiCS (Zhang et al., VLDB 2022): shards within a node, and an all-reduce of the shard between nodes.
// Scope states shards weights and gradients within a node and optimizer states over all ranks: what crosses slow links does so
// once a step.
struct ZeroConfig {
  int64_t stage = 0;
  int64_t prefetch = 1;  // buckets gathered ahead of the one in use
  int64_t inner = 0;     // 0: all links are alike
  ZeroScope scope = ZeroScope::kAll;
  bool secondary = false;
  Wire weights = Wire::kExact, gradients = Wire::kExact;
  ScatterBy scatter_by = ScatterBy::kRing;

  void Describe(ConfigFields& f);
  void Check(ConfigChecks& c, int64_t dp) const;
  bool operator==(const ZeroConfig&) const = default;
};

// The axis "dp" as "dp.i", of `inner` neighbouring ranks, and "dp.o" of the others, where inner is between 1 and its size. dp.i
// is the outer one where both shard a tensor: a shard over all ranks lies inside the shard over the neighbours.
std::vector<MeshAxis> FactorData(std::vector<MeshAxis> axes, int64_t inner);

}  // namespace strata
