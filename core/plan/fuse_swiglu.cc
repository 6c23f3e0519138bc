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

// The product that makes the gradient of h, where it does so for `bwd` alone; -1: none.
NodeId ProductOfGradient(const Rewrite& r, NodeId bwd) {
  const Value dh = r.old().nodes[bwd].inputs[0];
  return r.Maker(dh, "linear_dx") != nullptr && r.OnlyUser(dh) == bwd ? dh.node : -1;
}

struct Gated {  // swiglus of one packed product
  Packed p;
  SwigluUses uses;
  NodeId dh = -1;  // the linear_dx before the gradient
};
std::optional<Gated> MatchGated(const Rewrite& r, const Mesh& mesh, NodeId id) {
  const std::vector<Value>& in = r.old().nodes[id].inputs;
  std::optional<SwigluUses> uses = MatchSwiglu(r, in);
  if (!uses || r.old().spec(in[0]).shape != r.old().spec(in[1]).shape) return std::nullopt;
  std::optional<Packed> p = MatchForward(r, mesh, {in[0], in[1]});
  const NodeId bwd = uses->bwd;
  if (!p || (bwd >= 0 && !MatchBackward(r, mesh, {{bwd, 0}, {bwd, 1}}, *p))) return std::nullopt;
  return Gated{*std::move(p), *std::move(uses), bwd >= 0 ? ProductOfGradient(r, bwd) : -1};
}

// y = gate | up, made at the first of its swiglus, which comes with it; the others read y.
void EmitSwiglus(Rewrite& r, const Gated& match, const std::shared_ptr<Value>& y) {
  const std::vector<NodeId>& swiglus = match.uses.swiglus;
  // What gradients of inputs need must not wait for weight gradients, as a recomputed swiglu does.
  const Phase phase = r.old().nodes[match.p.products[0].node].phase;
  const bool biased = !match.p.biases.empty();
  r.At(swiglus[0], [&r, y, p = match.p, id = swiglus[0], phase, biased](GraphBuilder& g) {
    g.set_phase(phase);
    if (biased) {
      *y = EmitForward(r, g, p);
      return;
    }
    const GatedProduct made = LinearSwiglu(g, r.New(p.x), r.New(p.weights[0]), r.New(p.weights[1]));
    r.SetLayout(made.gu_2F, r.old().spec(p.products[0]).layout);
    r.Replace({id, 0}, made.h_F);
    *y = made.gu_2F;
  });
  for (NodeId id : std::span(swiglus).subspan(biased ? 0 : 1)) {
    r.At(id, [&r, y, id](GraphBuilder& g) { r.Replace({id, 0}, SwigluPacked(g, *y)); });
  }
}

// The gradient of y, in the product before it where that makes nothing else.
void EmitGradient(Rewrite& r, JoinedParts& joined, const Gated& match, const std::shared_ptr<Value>& y) {
  const NodeId bwd = match.uses.bwd;
  const auto dy = std::make_shared<Value>();
  if (match.dh >= 0) {  // where the product was, or where y is made, whichever comes later
    r.At(std::max(match.dh, match.uses.swiglus[0]), [&r, y, dy, bwd, dh = match.dh](GraphBuilder& g) {
      const std::vector<Value>& in = r.old().nodes[dh].inputs;
      g.set_phase(r.old().nodes[bwd].phase);
      *dy = LinearDxSwiglu(g, r.New(in[0]), r.New(in[1]), *y);
    });
  }
  EmitBackward(r, joined, match.p, bwd, [&r, y, dy, bwd](GraphBuilder& g) {
    return dy->valid() ? *dy : SwigluPackedDx(g, r.New(r.old().nodes[bwd].inputs[0]), *y);
  });
}

}  // namespace

absl::StatusOr<Graph> FuseSwiglu(const Graph& old, const Mesh& mesh) {
  Rewrite r(old);
  JoinedParts joined;
  const auto matches = MatchAlike<Gated>(old, "swiglu", [&](NodeId id) { return MatchGated(r, mesh, id); });
  for (const auto& [id, match] : matches) {
    if (match.uses.swiglus[0] != id) continue;
    const auto y = std::make_shared<Value>();
    EmitSwiglus(r, match, y);
    if (match.uses.bwd >= 0) EmitGradient(r, joined, match, y);
  }
  joined.Emit(r);
  return std::move(r).Run();
}

}  // namespace strata
