#pragma once
// Layouts of flat tensors, and where nodes on them belong.

#include <string>

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

// While it lives, nodes are made in a scope and phase, in the block, stage and replica of `like`.
class EmitLike {
 public:
  EmitLike(GraphBuilder& g, const Node& like, const std::string& scope, Phase phase)
      : g_(g), like_(like), first_(g.graph().nodes.size()) {
    Node scoped = like;
    scoped.scope = scope;
    g.PushLike(scoped);
    g.set_phase(phase);
  }
  EmitLike(const EmitLike&) = delete;
  EmitLike& operator=(const EmitLike&) = delete;
  ~EmitLike() {
    for (size_t id = first_; id < g_.graph().nodes.size(); ++id) {
      g_.mutable_graph().nodes[id].stage = like_.stage;
      g_.mutable_graph().nodes[id].replica = like_.replica;
    }
    g_.Pop();
  }

 private:
  GraphBuilder& g_;
  const Node& like_;
  const size_t first_;
};

constexpr AxisSet Without(AxisSet axes, AxisSet others) { return axes & static_cast<AxisSet>(~others); }

}  // namespace strata
