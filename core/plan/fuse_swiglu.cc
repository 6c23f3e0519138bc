#include <algorithm>

#include "core/base/status.h"
#include "core/graph/op.h"
#include "core/ops/fused.h"
#include "core/plan/fuse_packed.h"
#include "core/plan/fuse_steps.h"

namespace strata {
namespace {

// The swiglus of one gate and up (the first of them, and where backward recomputes it another one), and their gradient.
struct SwigluUses {
  std::vector<NodeId> swiglus;
  NodeId bwd = -1;
};
std::optional<SwigluUses> MatchSwiglu(const Rewrite& r, const std::vector<Value>& gate_up) {
  SwigluUses uses;
  for (NodeId id : r.Users(gate_up[0])) {
    if (id < 0) return std::nullopt;
    const Node& n = r.old().nodes[id];
    if (n.op->name() == "swiglu" && n.inputs == gate_up) {
      uses.swiglus.push_back(id);
    } else if (n.op->name() == "swiglu_dx" && uses.bwd < 0 &&
               std::equal(gate_up.begin(), gate_up.end(), n.inputs.begin() + 1)) {
      uses.bwd = id;
    } else {
      return std::nullopt;
    }
  }
  if (r.Users(gate_up[1]) != r.Users(gate_up[0])) return std::nullopt;
  return uses;
}

}  // namespace

absl::StatusOr<Graph> FuseSwiglu(const Graph& old, const Mesh& mesh) {
  Rewrite r(old);
  JoinedParts joined;
  for (NodeId id = 0; id < static_cast<NodeId>(old.nodes.size()); ++id) {
    const Node& n = old.nodes[id];
    if (n.op->name() != "swiglu") continue;
    const std::optional<SwigluUses> uses = MatchSwiglu(r, n.inputs);
    if (!uses || uses->swiglus[0] != id || old.spec(n.inputs[0]).shape != old.spec(n.inputs[1]).shape) continue;
    std::optional<Packed> p = MatchForward(r, mesh, {n.inputs[0], n.inputs[1]});
    const NodeId bwd = uses->bwd;
    if (!p || (bwd >= 0 && !MatchBackward(r, mesh, bwd, {{bwd, 0}, {bwd, 1}}, *p))) continue;
    auto y = std::make_shared<Value>();
    for (NodeId swiglu : uses->swiglus) {
      r.At(swiglu, [&r, y, p = *p, swiglu](GraphBuilder& g) {
        if (!y->valid()) *y = EmitForward(r, g, p);
        r.Replace({swiglu, 0}, SwigluPacked(g, *y));
      });
    }
    if (bwd < 0) continue;
    EmitBackward(r, joined, *p, bwd,
                 [&r, y, bwd](GraphBuilder& g) { return SwigluPackedDx(g, r.New(r.old().nodes[bwd].inputs[0]), *y); });
  }
  joined.Emit(r);
  return std::move(r).Run();
}

}  // namespace strata
