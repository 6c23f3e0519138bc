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

struct Gated {  // swiglus of one packed product
  Packed p;
  SwigluUses uses;
};
std::optional<Gated> MatchGated(const Rewrite& r, const Mesh& mesh, NodeId id) {
  const std::vector<Value>& in = r.old().nodes[id].inputs;
  std::optional<SwigluUses> uses = MatchSwiglu(r, in);
  if (!uses || r.old().spec(in[0]).shape != r.old().spec(in[1]).shape) return std::nullopt;
  std::optional<Packed> p = MatchForward(r, mesh, {in[0], in[1]});
  const NodeId bwd = uses->bwd;
  if (!p || (bwd >= 0 && !MatchBackward(r, mesh, {{bwd, 0}, {bwd, 1}}, *p))) return std::nullopt;
  return Gated{*std::move(p), *std::move(uses)};
}

}  // namespace

absl::StatusOr<Graph> FuseSwiglu(const Graph& old, const Mesh& mesh) {
  Rewrite r(old);
  JoinedParts joined;
  const auto matches = MatchAlike<Gated>(old, "swiglu", [&](NodeId id) { return MatchGated(r, mesh, id); });
  for (const auto& [id, match] : matches) {
    if (match.uses.swiglus[0] != id) continue;
    const NodeId bwd = match.uses.bwd;
    auto y = std::make_shared<Value>();
    for (NodeId swiglu : match.uses.swiglus) {
      r.At(swiglu, [&r, y, p = match.p, swiglu](GraphBuilder& g) {
        if (!y->valid()) *y = EmitForward(r, g, p);
        r.Replace({swiglu, 0}, SwigluPacked(g, *y));
      });
    }
    if (bwd < 0) continue;
    EmitBackward(r, joined, match.p, bwd,
                 [&r, y, bwd](GraphBuilder& g) { return SwigluPackedDx(g, r.New(r.old().nodes[bwd].inputs[0]), *y); });
  }
  joined.Emit(r);
  return std::move(r).Run();
}

}  // namespace strata
