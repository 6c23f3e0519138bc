#include "core/plan/fuse.h"

#include <algorithm>
#include <memory>

#include "core/base/status.h"
#include "core/graph/op.h"
#include "core/ops/elementwise.h"
#include "core/ops/fused.h"
#include "core/plan/fuse_steps.h"
#include "core/plan/rewrite.h"

namespace strata {
namespace {

// A product, its bias where it has one, and what is added to it, ending at node `id`; nothing else reads what is in between.
struct Product {
  const Node* linear = nullptr;
  Value bias;
};
Product ProductBefore(const Rewrite& r, Value y, NodeId reader) {
  Product p;
  if (r.OnlyUser(y) != reader) return {};
  if (const Node* biased = r.Maker(y, "bias_add"); biased != nullptr) {
    p.bias = biased->inputs[1];
    if (r.OnlyUser(biased->inputs[0]) != y.node) return {};
    y = biased->inputs[0];
  }
  p.linear = r.Maker(y, "linear");
  return p;
}

absl::StatusOr<Graph> FuseResiduals(const Graph& old, bool biases) {
  Rewrite r(old);
  for (NodeId id = 0; id < static_cast<NodeId>(old.nodes.size()); ++id) {
    const Node& n = old.nodes[id];
    if (n.op->name() != "add") continue;
    for (int i = 1; i >= 0; --i) {
      const Product p = ProductBefore(r, n.inputs[i], id);
      if (p.linear == nullptr || (p.bias.valid() && !biases)) continue;
      r.At(id, [&r, p, other = n.inputs[1 - i], id](GraphBuilder& g) {
        const Value x = r.New(p.linear->inputs[0]), w = r.New(p.linear->inputs[1]);
        r.Replace({id, 0}, p.bias.valid() ? LinearBiasAdd(g, x, w, r.New(p.bias), r.New(other))
                                          : LinearAdd(g, x, w, r.New(other)));
      });
      break;
    }
  }
  return std::move(r).Run();
}

// dx and the gradient of x by its other use, where that is there by then.
absl::StatusOr<Graph> FuseInputGradients(const Graph& old) {
  Rewrite r(old);
  for (NodeId id = 0; id < static_cast<NodeId>(old.nodes.size()); ++id) {
    const Node& n = old.nodes[id];
    if (n.op->name() != "linear_dx" && n.op->name() != "linear_packed_dx") continue;
    const NodeId add = r.OnlyUser({id, 0}, "add");
    if (add < 0) continue;
    const std::vector<Value>& in = old.nodes[add].inputs;
    const Value other = in[0] == Value{id, 0} ? in[1] : in[0];
    if (other.node >= id) continue;
    r.At(id, [&r, &n, other, add](GraphBuilder& g) {
      r.Replace({add, 0}, LinearDxAdd(g, r.New(n.inputs[0]), r.New(std::span(n.inputs).subspan(1)), r.New(other)));
    });
  }
  return std::move(r).Run();
}

absl::StatusOr<Graph> FuseBiases(const Graph& old) {
  Rewrite r(old);
  for (NodeId id = 0; id < static_cast<NodeId>(old.nodes.size()); ++id) {
    const Node& n = old.nodes[id];
    if (n.op->name() != "bias_add") continue;
    const Node* linear = r.Maker(n.inputs[0], "linear");
    if (linear == nullptr || r.OnlyUser(n.inputs[0]) != id) continue;
    r.At(id, [&r, &n, linear, id](GraphBuilder& g) {
      r.Replace({id, 0}, LinearBias(g, r.New(linear->inputs[0]), r.New(linear->inputs[1]), r.New(n.inputs[1])));
    });
  }
  return std::move(r).Run();
}

// What sums up `dx` for the gradient of a bias that was added to x; -1: none. The residual stream is marked by identities.
NodeId BiasBefore(const Rewrite& r, Value dx) {
  for (NodeId mark = r.OnlyUser(dx, "identity"); mark >= 0; mark = r.OnlyUser(dx, "identity")) dx = {mark, 0};
  const std::vector<Value> wanted = {dx};
  const NodeId sum = r.Reader(dx, "bias_grad", wanted, 0), added = r.Reader(dx, "bias_grad_acc", wanted, 1);
  if (sum >= 0 || added < 0) return sum;
  const Node& n = r.old().nodes[added];
  return n.inputs.size() == 2 && !FusedAttributesOf(*n.op).always_add ? added : -1;
}

// Accumulators that `sums` are added to, each by its only reader, and what comes out; none where one of the sums is not. All of one
// dtype. A sum may be what a kernel has added already.
struct Accumulated {
  std::vector<Value> accs, totals;
};
Accumulated AccumulatorsOf(const Rewrite& r, const std::vector<Value>& sums) {
  Accumulated a;
  for (Value sum : sums) {
    const bool added = r.Maker(sum, "bias_grad_acc") != nullptr;
    const NodeId total = added ? sum.node : r.OnlyUser(sum, "accumulate");
    if (total < 0) return {};
    const Value acc = r.old().nodes[total].inputs[0];
    if (r.Maker(acc, "read") == nullptr || r.Users(acc).size() != 1) return {};
    if (!a.accs.empty() && r.old().spec(acc).dtype != r.old().spec(a.accs[0]).dtype) return {};
    a.accs.push_back(acc);
    a.totals.push_back({total, 0});
  }
  return a;
}

// dx and dw of a norm, the add that joins dx with the other gradient of x, if that is there by then, and of layer norm the gradient of
// a bias before it.
struct NormGroup {
  NodeId dx = -1, dw = -1, bias = -1;
  Value other, whole;  // of the residual stream
  NodeId first() const { return std::min(dx, dw); }
};
NormGroup NormGroupOf(const Rewrite& r, NodeId dx, std::string_view dw_name) {
  const Graph& old = r.old();
  NormGroup group{.dx = dx, .whole = {dx, 0}};
  std::vector<Value> wanted = old.nodes[dx].inputs;  // dy, x, weight, [mean,] rstd: dw has no weight
  wanted.erase(wanted.begin() + 2);
  group.dw = r.Reader(wanted[0], dw_name, wanted, 0);
  const NodeId add = r.OnlyUser({dx, 0}, "add");
  if (add < 0) return group;
  const std::vector<Value>& in = old.nodes[add].inputs;
  const Value other = in[0] == Value{dx, 0} ? in[1] : in[0];
  if (other.node >= group.first() || other.node == dx) return group;
  group.other = other;
  group.whole = {add, 0};
  return group;
}

void EmitNorm(Rewrite& r, const NormGroup& group) {
  const auto sum = std::make_shared<Value>();  // of the new graph: bias's
  r.At(group.first(), [&r, group, sum](GraphBuilder& g) {
    const std::vector<Value> in = r.New(r.old().nodes[group.dx].inputs);
    const Value other = r.New(group.other);
    NormGrads d;
    if (group.bias >= 0) {
      const NormGradsAndSum both = LayerNormBwdSum(g, in[0], in[1], in[2], in[3], in[4], other);
      d = both.norm;
      *sum = both.dx_sum_E;
    } else {
      d = in.size() > 4 ? LayerNormBwd(g, in[0], in[1], in[2], in[3], in[4], other)
                        : RmsNormBwd(g, in[0], in[1], in[2], in[3], other);
    }
    r.Replace(group.whole, d.dx_BSE);
    r.Replace({group.dw, 0}, d.dw_E);
    if (in.size() > 4) r.Replace({group.dw, 1}, d.db_E);
  });
  if (group.bias < 0) return;
  r.At(group.bias, [&r, bias = group.bias, sum](GraphBuilder& g) {
    const Node& grad = r.old().nodes[bias];
    r.Replace({bias, 0}, grad.op->name() == "bias_grad" ? *sum : Accumulate(g, r.New(grad.inputs[0]), *sum));
  });
}

void EmitNormAcc(Rewrite& r, const NormGroup& group, const Accumulated& sums) {
  r.At(group.first(), [&r, group, sums](GraphBuilder& g) {
    const std::vector<Value> in = r.New(r.old().nodes[group.dx].inputs);
    const Value mean = in.size() > 4 ? in[3] : Value{};
    const NormGradsAdded d = NormBwdAcc(g, in[0], in[1], in[2], mean, in.back(), r.New(sums.accs), r.New(group.other));
    r.Replace(group.whole, d.dx_BSE);
    for (size_t i = 0; i < sums.totals.size(); ++i) r.Replace(sums.totals[i], d.accs_E[i]);
  });
}

struct Norm {
  std::string_view dx, dw;
  const char *bwd, *bwd_sum;  // bwd_sum: with the gradient of a bias, or null
};
constexpr Norm kRmsNorm = {"rms_norm_dx", "rms_norm_dw", "rms_norm_bwd", nullptr};
constexpr Norm kLayerNorm = {"layer_norm_dx", "layer_norm_dw", "layer_norm_bwd", "layer_norm_bwd_sum"};

absl::StatusOr<Graph> FuseNorms(const Graph& old, const Norm& norm, const KernelTable& kernels) {
  if (!kernels.Has(norm.bwd)) return old;
  const bool biases = norm.bwd_sum != nullptr && kernels.Has(norm.bwd_sum);
  Rewrite r(old);
  for (NodeId dx = 0; dx < static_cast<NodeId>(old.nodes.size()); ++dx) {
    if (old.nodes[dx].op->name() != norm.dx) continue;
    NormGroup group = NormGroupOf(r, dx, norm.dw);
    if (group.dw < 0) continue;
    std::vector<Value> sums;
    for (size_t i = 0; i < old.nodes[group.dw].outputs.size(); ++i) sums.push_back({group.dw, static_cast<int32_t>(i)});
    if (biases) group.bias = BiasBefore(r, group.whole);
    if (group.bias >= 0) sums.push_back({group.bias, 0});
    const Accumulated added = AccumulatorsOf(r, sums);
    const std::string name = group.bias >= 0 ? norm.bwd_sum : norm.bwd;
    if (!added.accs.empty() && kernels.Has(name + "_acc")) {
      EmitNormAcc(r, group, added);
    } else {
      EmitNorm(r, group);
    }
  }
  return std::move(r).Run();
}

absl::StatusOr<Graph> FuseCrossEntropy(const Graph& old) {
  Rewrite r(old);
  for (NodeId id = 0; id < static_cast<NodeId>(old.nodes.size()); ++id) {
    const Node& n = old.nodes[id];
    if (n.op->name() != "nll") continue;
    const Node *max = r.Maker(n.inputs[0], "vocab_max"), *sum = r.Maker(n.inputs[1], "vocab_sum_exp"),
               *pick = r.Maker(n.inputs[2], "vocab_pick");
    if (max == nullptr || sum == nullptr || pick == nullptr) continue;
    const Value z = max->inputs[0], targets = pick->inputs[1], weights = n.inputs[3];
    if (sum->inputs[0] != z || sum->inputs[1] != n.inputs[0] || pick->inputs[0] != z) continue;
    const std::vector<Value> wanted = {z, n.inputs[0], n.inputs[1], targets, weights};
    const NodeId grad = r.Reader(z, "softmax_grad", wanted, 0);
    const NodeId first = grad < 0 ? id : std::min(id, grad);
    r.At(first, [&r, z, targets, weights, id, grad](GraphBuilder& g) {
      if (grad < 0) {
        r.Replace({id, 0}, SoftmaxNll(g, r.New(z), r.New(targets), r.New(weights)));
        return;
      }
      const Value seed = r.old().nodes[grad].inputs[5];
      const NllAndGrad out = SoftmaxNllGrad(g, r.New(z), r.New(targets), r.New(weights), r.New(seed));
      r.Replace({grad, 0}, out.dz_BSV);
      r.Replace({id, 0}, out.loss);
    });
  }
  return std::move(r).Run();
}

}  // namespace

absl::StatusOr<Graph> FuseOps(Graph g, const Mesh& mesh, const KernelTable& kernels) {
  const auto has = [&](std::initializer_list<const char*> ops) {
    return std::all_of(ops.begin(), ops.end(), [&](const char* op) { return kernels.Has(op); });
  };
  if (has({"linear_dw_acc"}) || has({"embedding_dw_acc"})) {
    ASSIGN_OR_RETURN(g, FuseSums(g, kernels));
  }
  if (has({"linear_packed", "linear_packed_bias", "linear_packed_dx", "linear_dw_acc"})) {
    if (has({"linear_rope", "rope_packed", "attention_packed", "attention_packed_bwd", "attention_rope_bwd"})) {
      ASSIGN_OR_RETURN(g, FuseAttention(g, mesh));
    }
    if (has({"linear_swiglu", "linear_dx_swiglu", "swiglu_packed", "swiglu_packed_dx"})) {
      ASSIGN_OR_RETURN(g, FuseSwiglu(g, mesh));
    }
  }
  if (has({"attention_packed", "attention_packed_bwd", "heads_packed", "heads_unpacked"})) {
    ASSIGN_OR_RETURN(g, FuseHeads(g, kernels));
  }
  if (has({"linear_bias", "linear_bias_gelu", "linear_dx_gelu"})) {
    ASSIGN_OR_RETURN(g, FuseGelu(g, kernels));
  }
  if (has({"linear_add"})) {
    ASSIGN_OR_RETURN(g, FuseResiduals(g, has({"linear_bias_add"})));
  }
  if (has({"linear_dx_add"})) {
    ASSIGN_OR_RETURN(g, FuseInputGradients(g));
  }
  if (has({"linear_bias"})) {
    ASSIGN_OR_RETURN(g, FuseBiases(g));
  }
  for (const Norm& norm : {kRmsNorm, kLayerNorm}) {
    ASSIGN_OR_RETURN(g, FuseNorms(g, norm, kernels));
  }
  if (has({"softmax_nll", "softmax_nll_grad"})) {
    ASSIGN_OR_RETURN(g, FuseCrossEntropy(g));
  }
  return g;
}

}  // namespace strata
