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

// dx and dw of a norm, and the add that joins dx with the other gradient of x, if that is there by then. kLayerAndSums: and of layer norm
// the gradient of a bias before it.
enum class Norm { kRms, kLayer, kLayerAndSums };
absl::StatusOr<Graph> FuseNorms(const Graph& old, Norm norm) {
  const bool layer_norm = norm != Norm::kRms;
  const std::string_view dx_name = layer_norm ? "layer_norm_dx" : "rms_norm_dx";
  const std::string_view dw_name = layer_norm ? "layer_norm_dw" : "rms_norm_dw";
  Rewrite r(old);
  for (NodeId dx = 0; dx < static_cast<NodeId>(old.nodes.size()); ++dx) {
    const Node& n = old.nodes[dx];
    if (n.op->name() != dx_name) continue;
    std::vector<Value> wanted = n.inputs;  // dy, x, weight, [mean,] rstd: dw has no weight
    wanted.erase(wanted.begin() + 2);
    const NodeId dw = r.Reader(n.inputs[0], dw_name, wanted, 0);
    if (dw < 0) continue;
    const NodeId first = std::min(dx, dw), add = r.OnlyUser({dx, 0}, "add");
    Value other;
    if (add >= 0) {
      const std::vector<Value>& in = old.nodes[add].inputs;
      other = in[0] == Value{dx, 0} ? in[1] : in[0];
      if (other.node >= first || other.node == dx) other = {};
    }
    const Value whole = other.valid() ? Value{add, 0} : Value{dx, 0};
    const NodeId bias = norm == Norm::kLayerAndSums ? BiasBefore(r, whole) : -1;
    const auto sum = std::make_shared<Value>();  // of the new graph: bias's
    r.At(first, [&r, &n, dw, other, whole, layer_norm, bias, sum](GraphBuilder& g) {
      const std::vector<Value> in = r.New(n.inputs);
      NormGrads d;
      if (bias >= 0) {
        const NormGradsAndSum both = LayerNormBwdSum(g, in[0], in[1], in[2], in[3], in[4], r.New(other));
        d = both.norm;
        *sum = both.dx_sum_E;
      } else {
        d = layer_norm ? LayerNormBwd(g, in[0], in[1], in[2], in[3], in[4], r.New(other))
                       : RmsNormBwd(g, in[0], in[1], in[2], in[3], r.New(other));
      }
      r.Replace(whole, d.dx_BSE);
      r.Replace({dw, 0}, d.dw_E);
      if (layer_norm) r.Replace({dw, 1}, d.db_E);
    });
    if (bias < 0) continue;
    r.At(bias, [&r, bias, sum](GraphBuilder& g) {
      const Node& grad = r.old().nodes[bias];
      r.Replace({bias, 0}, grad.op->name() == "bias_grad" ? *sum : Accumulate(g, r.New(grad.inputs[0]), *sum));
    });
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
  if (has({"rms_norm_bwd"})) {
    ASSIGN_OR_RETURN(g, FuseNorms(g, Norm::kRms));
  }
  if (has({"layer_norm_bwd"})) {
    ASSIGN_OR_RETURN(g, FuseNorms(g, has({"layer_norm_bwd_sum"}) ? Norm::kLayerAndSums : Norm::kLayer));
  }
  if (has({"softmax_nll", "softmax_nll_grad"})) {
    ASSIGN_OR_RETURN(g, FuseCrossEntropy(g));
  }
  return g;
}

}  // namespace strata
