#pragma once
// Layouts of flat tensors.

#include "core/graph/builder.h"

namespace strata {

// Shard(dim) on `shard`, Partial on the axes of `partial` that do not shard, Replicate elsewhere.
inline Layout LayoutOn(AxisSet shard, AxisSet partial, int dim = 0) {
  Layout layout{};
  for (int a = 0; a < kMaxAxes; ++a) {
    if ((partial >> a & 1) != 0) layout[a] = Partial();
    if ((shard >> a & 1) != 0) layout[a] = Shard(dim);
  }
  return layout;
}

inline Value WithLayout(GraphBuilder& g, Value v, const Layout& layout) {
  if (v.valid()) g.mutable_graph().nodes[v.node].outputs[v.output].layout = layout;
  return v;
}

constexpr AxisSet Without(AxisSet axes, AxisSet others) { return axes & static_cast<AxisSet>(~others); }

}  // namespace strata
