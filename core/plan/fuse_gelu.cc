#include <set>

#include "core/base/status.h"
#include "core/graph/op.h"
#include "core/ops/collective.h"
#include "core/ops/fused.h"
#include "core/plan/fuse_packed.h"
#include "core/plan/fuse_steps.h"

namespace strata {
namespace {

struct Curved {  // gelu(x w^T + bias)
  NodeId affine = -1, gelu = -1;
  const Node* linear = nullptr;
};

// Of several gelus of one affine map, such as one that backward computes again, the first.
std::optional<Curved> MatchGelu(const Rewrite& r, NodeId id) {
  const Node& n = r.old().nodes[id];
  const Value pre = n.inputs[0];
  const Node* biased = r.Maker(pre, "bias_add");
  if (biased == nullptr || r.OnlyUser(biased->inputs[0]) != pre.node) return std::nullopt;
  const Node* linear = r.Maker(biased->inputs[0], "linear");
  const NodeId first = r.Reader(pre, "gelu", std::vector{pre}, 0);
  if (linear == nullptr || GeluKindOf(*r.old().nodes[first].op) != GeluKindOf(*n.op)) return std::nullopt;
  return Curved{pre.node, first, linear};
}

void EmitGelu(Rewrite& r, const Curved& c) {
  r.At(c.affine, [&r, c](GraphBuilder& g) {
    const Value bias = r.old().nodes[c.affine].inputs[1];
    const GeluProduct made = LinearBiasGelu(g, r.New(c.linear->inputs[0]), r.New(c.linear->inputs[1]), r.New(bias),
                                            GeluKindOf(*r.old().nodes[c.gelu].op));
    r.Replace({c.affine, 0}, made.pre_F);
    r.Replace({c.gelu, 0}, made.h_F);
  });
}

// What adds up the gradient of a bias, `dpre`, where that may be done at node `at`; -1: none. Where dy comes
// from other ranks, its product may be done in groups of rows (split_rows.h), which have no sum of all.
NodeId BiasGradOf(const Rewrite& r, NodeId dpre, const Node& product, NodeId at) {
  const Graph& g = r.old();
  const Value d{dpre, 0};
  const NodeId id = r.Reader(d, "bias_grad_acc", std::vector{d}, 1);
  if (id < 0 || AsCollective(g.nodes[product.inputs[0].node]) != nullptr) return -1;
  const std::vector<Value>& in = g.nodes[id].inputs;
  return in.size() == 2 && (in[0].node < at || r.Maker(in[0], "read") != nullptr) ? id : -1;
}

// The gradient of pre, in the product before it where that makes nothing else: where the product was, or where pre is made again
// after it.
void EmitGradient(Rewrite& r, NodeId id, const std::set<NodeId>& affine, const KernelTable& kernels) {
  const Node& n = r.old().nodes[id];
  const Value dh = n.inputs[0], pre = n.inputs[1];
  const Node* product = r.Maker(dh, "linear_dx");
  if (product == nullptr || r.OnlyUser(dh) != id) return;
  const NodeId at = pre.node < dh.node ? dh.node : affine.contains(pre.node) ? pre.node : id;
  const NodeId sum = kernels.Has("linear_dx_gelu_acc") ? BiasGradOf(r, id, *product, at) : -1;
  r.At(at, [&r, &n, id, product, pre, sum](GraphBuilder& g) {
    g.set_phase(n.phase);
    const Value dy = r.New(product->inputs[0]), w = r.New(product->inputs[1]);
    if (sum < 0) {
      r.Replace({id, 0}, LinearDxGelu(g, dy, w, r.New(pre), GeluKindOf(*n.op)));
      return;
    }
    const Node& bias = r.old().nodes[sum];
    const GeluGradient made = LinearDxGeluAcc(g, r.New(bias.inputs[0]), dy, w, r.New(pre), GeluKindOf(*n.op),
                                              FusedAttributesOf(*bias.op).always_add);
    r.Replace({id, 0}, made.dpre_F);
    r.Replace({sum, 0}, made.acc_F);
  });
}

}  // namespace

absl::StatusOr<Graph> FuseGelu(const Graph& old, const KernelTable& kernels) {
  Rewrite r(old);
  std::set<NodeId> affine;
  for (const auto& [id, match] : MatchAlike<Curved>(old, "gelu", [&](NodeId id) { return MatchGelu(r, id); })) {
    if (match.gelu != id) continue;
    EmitGelu(r, match);
    affine.insert(match.affine);
  }
  for (NodeId id = 0; id < static_cast<NodeId>(old.nodes.size()); ++id) {
    if (old.nodes[id].op->name() == "gelu_dx") EmitGradient(r, id, affine, kernels);
  }
  return std::move(r).Run();
}

}  // namespace strata
