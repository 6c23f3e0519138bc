#include "core/plan/fuse.h"

#include <algorithm>
#include <optional>
#include <set>

#include "core/base/status.h"
#include "core/graph/op.h"
#include "core/ops/bias.h"
#include "core/ops/flat.h"
#include "core/ops/fused.h"
#include "core/ops/move.h"
#include "core/plan/rewrite.h"

namespace strata {
namespace {

bool Is(const Node& n, std::string_view op) { return n.op->name() == op; }

// Where a parameter lies: in the flat storage of a state that is read, or in a gathered flat tensor that it is a view of.
struct FlatPlace {
  Value gathered;
  StateId storage = -1;
  int64_t offset = -1;
};
FlatPlace PlaceOf(const Graph& g, Value v) {
  const Node& n = g.nodes[v.node];
  if (const FlatViewOp* view = AsFlatView(n)) return {.gathered = n.inputs[0], .offset = view->offset()};
  if (AsRead(n) == nullptr) return {};
  const State& s = g.states[AsRead(n)->state()];
  return {.storage = s.storage, .offset = s.storage_offset};
}

// Whether these parameters lie one behind the other in one flat tensor.
bool Adjacent(const Graph& g, const Mesh& mesh, std::span<const Value> parameters) {
  FlatPlace expected;
  for (Value v : parameters) {
    const FlatPlace at = PlaceOf(g, v);
    if (at.storage < 0 && !at.gathered.valid()) return false;
    if (expected.offset >= 0 &&
        (at.gathered != expected.gathered || at.storage != expected.storage || at.offset != expected.offset)) {
      return false;
    }
    const absl::StatusOr<LocalBox> box = LocalBoxOf(g.spec(v).shape, g.spec(v).layout, mesh);
    if (!box.ok()) return false;
    expected = at;
    expected.offset += box->shape.elements();
  }
  return true;
}

// The state behind a parameter: gathered weights are made of it alone.
NodeId SourceOf(const Graph& g, Value v) {
  while (!g.nodes[v.node].inputs.empty()) v = g.nodes[v.node].inputs[0];
  return v.node;
}

// Whether forward and backward read one parameter, which each may have gathered for itself.
bool SameParameter(const Graph& g, Value a, Value b) {
  if (a == b) return true;
  const FlatViewOp *va = AsFlatView(g.nodes[a.node]), *vb = AsFlatView(g.nodes[b.node]);
  if (va == nullptr || vb == nullptr || va->offset() != vb->offset()) return false;
  const ReadOp *ra = AsRead(g.nodes[SourceOf(g, a)]), *rb = AsRead(g.nodes[SourceOf(g, b)]);
  return ra != nullptr && rb != nullptr && ra->state() == rb->state();
}

bool SameLayouts(const Graph& g, std::span<const Value> values) {
  return std::all_of(values.begin(), values.end(),
                     [&](Value v) { return g.spec(v).layout == g.spec(values[0]).layout; });
}

// ---- accumulations

// The weight gradients that an accumulation adds up, through adds, in order of their nodes; empty where it adds others too.
std::vector<Value> Summands(const Rewrite& r, const KernelTable& kernels, Value sum) {
  if (r.Users(sum).size() != 1) return {};
  const Node& n = r.old().nodes[sum.node];
  if ((Is(n, "linear_dw") && kernels.Has("linear_dw_acc")) ||
      (Is(n, "embedding_dw") && kernels.Has("embedding_dw_acc"))) {
    return {sum};
  }
  if (!Is(n, "add")) return {};
  std::vector<Value> all;
  for (Value v : n.inputs) {
    const std::vector<Value> part = Summands(r, kernels, v);
    if (part.empty()) return {};
    all.insert(all.end(), part.begin(), part.end());
  }
  std::sort(all.begin(), all.end());
  return all;
}

absl::StatusOr<Graph> FuseAccumulations(const Graph& old, const KernelTable& kernels) {
  Rewrite r(old);
  for (NodeId id = 0; id < static_cast<NodeId>(old.nodes.size()); ++id) {
    const Node& n = old.nodes[id];
    if (!Is(n, "accumulate") || r.Maker(n.inputs[0], "read") == nullptr || r.Users(n.inputs[0]).size() != 1) continue;
    const std::vector<Value> parts = Summands(r, kernels, n.inputs[1]);
    if (parts.empty()) continue;
    auto acc = std::make_shared<Value>();  // of the new graph, as it grows
    for (size_t i = 0; i < parts.size(); ++i) {
      r.At(parts[i].node, [&r, &n, id, acc, part = parts[i], i, last = i + 1 == parts.size()](GraphBuilder& g) {
        const Node& dw = r.old().nodes[part.node];
        if (i == 0) *acc = r.New(n.inputs[0]);
        const Value a = r.New(dw.inputs[0]), b = r.New(dw.inputs[1]);
        *acc = Is(dw, "linear_dw") ? LinearDwAcc(g, std::vector{*acc}, a, b, i > 0)[0]
                                   : EmbeddingDwAcc(g, *acc, a, b, i > 0);
        r.SetLayout(*acc, n.outputs[0].layout);
        if (last) r.Replace({id, 0}, *acc);
      });
    }
  }
  return std::move(r).Run();
}

// ---- packed products

// Products of one x by adjacent weights whose results differ in nothing but their width, and what the backward makes of them.
struct Packed {
  Value x;
  std::vector<Value> products, weights, biases;  // a product with its bias, where there are biases
  // Backward: d products[i], the sum of the products' dx, the accumulations of their weights' gradients, the biases' gradients.
  std::vector<Value> grads, accs, sums, bias_grads;
  std::vector<Value> dx_weights;  // the weights as the backward reads them
  Value dx, dw_x;  // dw_x: the copy of x that the weights' gradients read: x, or x recomputed or gathered again
};

std::optional<Packed> MatchForward(const Rewrite& r, const Mesh& mesh, std::vector<Value> products) {
  Packed p{.products = std::move(products)};
  for (Value y : p.products) {
    if (const Node* biased = r.Maker(y, "bias_add"); biased != nullptr) {
      p.biases.push_back(biased->inputs[1]);
      y = biased->inputs[0];
      if (r.Users(y).size() != 1) return std::nullopt;
    }
    const Node* linear = r.Maker(y, "linear");
    if (linear == nullptr || (p.x.valid() && linear->inputs[0] != p.x)) return std::nullopt;
    p.x = linear->inputs[0];
    p.weights.push_back(linear->inputs[1]);
  }
  const auto fits = [&](const std::vector<Value>& reads) {
    return SameLayouts(r.old(), reads) && Adjacent(r.old(), mesh, reads);
  };
  if (!SameLayouts(r.old(), p.products) || !fits(p.weights)) return std::nullopt;
  if (!p.biases.empty() && (p.biases.size() != p.weights.size() || !fits(p.biases))) return std::nullopt;
  return p;
}

// Finds what is made of `grads`, the gradients of p's products; false where it is not all there.
bool MatchBackward(const Rewrite& r, const Mesh& mesh, std::vector<Value> grads, Packed& p) {
  p.grads = std::move(grads);
  p.dx_weights = p.weights;
  std::set<Value> dx;
  for (size_t i = 0; i < p.grads.size(); ++i) {
    if (r.Users(p.grads[i]).size() != (p.biases.empty() ? 2 : 3)) return false;
    for (NodeId id : r.Users(p.grads[i])) {
      if (id < 0) return false;
      const Node& n = r.old().nodes[id];
      if (Is(n, "linear_dx") && SameParameter(r.old(), n.inputs[1], p.weights[i])) {
        p.dx_weights[i] = n.inputs[1];
        dx.insert({id, 0});
      } else if (Is(n, "linear_dw_acc") && n.inputs.size() == 3 && (!p.dw_x.valid() || n.inputs[2] == p.dw_x) &&
                 !FusedAttributesOf(*n.op).always_add) {
        p.dw_x = n.inputs[2];
        p.accs.push_back(n.inputs[0]);
        p.sums.push_back({id, 0});
      } else if (Is(n, "bias_grad") && !p.biases.empty()) {
        p.bias_grads.push_back({id, 0});
        if (r.old().spec(p.bias_grads.back()).shape != r.old().spec(p.bias_grads[0]).shape) return false;
      } else {
        return false;
      }
    }
  }
  if (p.accs.size() != p.grads.size() || dx.size() != p.grads.size() || !Adjacent(r.old(), mesh, p.accs) ||
      !Adjacent(r.old(), mesh, p.dx_weights)) {
    return false;
  }
  while (dx.size() > 1) {  // the adds that join them
    bool joined = false;
    for (Value v : dx) {
      const NodeId id = r.OnlyUser(v, "add");
      if (id < 0) continue;
      const std::vector<Value> in = r.old().nodes[id].inputs;
      if (!dx.contains(in[0]) || !dx.contains(in[1]) || in[0] == in[1] || r.OnlyUser(in[0]) != id ||
          r.OnlyUser(in[1]) != id)
        continue;
      dx.erase(in[0]);
      dx.erase(in[1]);
      dx.insert({id, 0});
      joined = true;
      break;
    }
    if (!joined) return false;
  }
  p.dx = *dx.begin();
  return true;
}

std::vector<Value> NewAll(Rewrite& r, std::span<const Value> old) {
  std::vector<Value> fresh;
  for (Value v : old) fresh.push_back(r.New(v));
  return fresh;
}

Value EmitForward(Rewrite& r, GraphBuilder& g, const Packed& p) {
  const std::vector<Value> weights = NewAll(r, p.weights);
  const Value y = p.biases.empty() ? LinearPacked(g, r.New(p.x), weights)
                                   : LinearPackedBias(g, r.New(p.x), weights, NewAll(r, p.biases));
  r.SetLayout(y, r.old().spec(p.products[0]).layout);
  return y;
}

void EmitBackward(Rewrite& r, GraphBuilder& g, const Packed& p, Value dy) {
  r.Replace(p.dx, LinearPackedDx(g, dy, NewAll(r, p.dx_weights)));
  const std::vector<Value> sums = LinearDwAcc(g, NewAll(r, p.accs), dy, r.New(p.dw_x), false);
  for (size_t i = 0; i < p.sums.size(); ++i) r.Replace(p.sums[i], sums[i]);
  if (p.bias_grads.empty()) return;
  const Value all = BiasGrad(g, dy);
  r.SetLayout(all, r.old().spec(p.bias_grads[0]).layout);
  const int n = static_cast<int>(p.bias_grads.size());
  for (int i = 0; i < n; ++i) r.Replace(p.bias_grads[i], Slice(g, all, 0, i, n));
}

// ---- gate | up

// The only reader of this op and these inputs at these places.
NodeId ReaderOf(const Rewrite& r, Value v, std::string_view op, std::span<const Value> inputs, size_t first) {
  for (NodeId id : r.Users(v)) {
    if (id < 0 || !Is(r.old().nodes[id], op)) continue;
    const std::vector<Value>& in = r.old().nodes[id].inputs;
    if (in.size() >= first + inputs.size() &&
        std::equal(inputs.begin(), inputs.end(), in.begin() + static_cast<long>(first)))
      return id;
  }
  return -1;
}

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
    if (Is(n, "swiglu") && n.inputs == gate_up) {
      uses.swiglus.push_back(id);
    } else if (Is(n, "swiglu_dx") && uses.bwd < 0 && std::equal(gate_up.begin(), gate_up.end(), n.inputs.begin() + 1)) {
      uses.bwd = id;
    } else {
      return std::nullopt;
    }
  }
  if (r.Users(gate_up[1]) != r.Users(gate_up[0])) return std::nullopt;
  return uses;
}

absl::StatusOr<Graph> FuseSwiglu(const Graph& old, const Mesh& mesh) {
  Rewrite r(old);
  for (NodeId id = 0; id < static_cast<NodeId>(old.nodes.size()); ++id) {
    const Node& n = old.nodes[id];
    if (!Is(n, "swiglu")) continue;
    const std::optional<SwigluUses> uses = MatchSwiglu(r, n.inputs);
    if (!uses || uses->swiglus[0] != id || old.spec(n.inputs[0]).shape != old.spec(n.inputs[1]).shape) continue;
    std::optional<Packed> p = MatchForward(r, mesh, {n.inputs[0], n.inputs[1]});
    const NodeId bwd = uses->bwd;
    if (!p || (bwd >= 0 && !MatchBackward(r, mesh, {{bwd, 0}, {bwd, 1}}, *p))) continue;
    auto y = std::make_shared<Value>();
    for (NodeId swiglu : uses->swiglus) {
      r.At(swiglu, [&r, y, p = *p, swiglu](GraphBuilder& g) {
        if (!y->valid()) *y = EmitForward(r, g, p);
        r.Replace({swiglu, 0}, SwigluPacked(g, *y));
      });
    }
    if (bwd < 0) continue;
    r.At(bwd, [&r, y, p = *p, bwd](GraphBuilder& g) {
      const Value dy = SwigluPackedDx(g, r.New(r.old().nodes[bwd].inputs[0]), *y);
      r.SetLayout(dy, r.old().spec(p.grads[0]).layout);
      EmitBackward(r, g, p, dy);
    });
  }
  return std::move(r).Run();
}

// ---- q | k | v

struct Attended {  // an attention whose operands come from one packed product
  Packed p;
  NodeId fwd = -1, bwd = -1;
  Value positions;
  const Node* rope = nullptr;  // of q; null: none
  const Node* rope_bwd = nullptr;
};

// The product behind an operand of attention: through its rope, if there is one, and the split into heads.
Value ProductOf(const Rewrite& r, Value operand, const Node*& rope) {
  rope = r.Maker(operand, "rope");
  const Value heads = rope != nullptr ? rope->inputs[0] : operand;
  const Node* split = r.Maker(heads, "split_dim");
  return split != nullptr ? split->inputs[0] : Value{};
}

// The gradient of a product, from that of the operand: through the inverse rope and the merging of heads.
Value GradOf(const Rewrite& r, Value grad, bool turned, const Node*& rope) {
  if (turned) {
    const NodeId id = r.OnlyUser(grad, "rope");
    if (id < 0) return {};
    rope = &r.old().nodes[id];
    grad = {id, 0};
  }
  const NodeId merge = r.OnlyUser(grad, "merge_dims");
  return merge < 0 ? Value{} : Value{merge, 0};
}

std::optional<Attended> MatchAttention(const Rewrite& r, const Mesh& mesh, NodeId id) {
  const Graph& old = r.old();
  const Node& n = old.nodes[id];
  if (!Is(n, "attention") || n.inputs.size() != 5 || n.inputs[3] != n.inputs[4]) return std::nullopt;
  Attended a{.fwd = id, .positions = n.inputs[3]};
  const Node *rope[3] = {}, *rope_bwd[3] = {};
  std::vector<Value> products;
  for (int i = 0; i < 3; ++i) {
    products.push_back(ProductOf(r, n.inputs[i], rope[i]));
    if (!products.back().valid()) return std::nullopt;
  }
  a.rope = rope[0];
  if ((rope[0] == nullptr) != (rope[1] == nullptr) || rope[2] != nullptr) return std::nullopt;
  if (a.rope != nullptr && (rope[0]->inputs[1] != a.positions || rope[1]->inputs[1] != a.positions ||
                            RopeAttributesOf(*rope[0]->op) != RopeAttributesOf(*rope[1]->op))) {
    return std::nullopt;
  }
  std::optional<Packed> p = MatchForward(r, mesh, products);
  if (!p) return std::nullopt;
  a.p = *std::move(p);
  a.bwd = ReaderOf(r, n.inputs[0], "attention_bwd", std::span(n.inputs).first(3), 1);
  const size_t uses = a.bwd >= 0 ? 2 : 1;
  for (int i = 0; i < 3; ++i) {
    if (r.Users(n.inputs[i]).size() != uses) return std::nullopt;
  }
  if (a.bwd < 0) return a;
  std::vector<Value> grads;
  for (int i = 0; i < 3; ++i) {
    grads.push_back(GradOf(r, {a.bwd, i}, rope[i] != nullptr, rope_bwd[i]));
    if (!grads.back().valid()) return std::nullopt;
  }
  a.rope_bwd = rope_bwd[0];
  if (!MatchBackward(r, mesh, grads, a.p)) return std::nullopt;
  return a;
}

absl::StatusOr<Graph> FuseAttention(const Graph& old, const Mesh& mesh) {
  Rewrite r(old);
  for (NodeId id = 0; id < static_cast<NodeId>(old.nodes.size()); ++id) {
    const std::optional<Attended> match = MatchAttention(r, mesh, id);
    if (!match) continue;
    const Node& n = old.nodes[id];
    const Shape q = old.spec(n.inputs[0]).shape;
    const int64_t group = q[2] / old.spec(n.inputs[1]).shape[2], head_dim = q[3];
    const AttentionMask mask = AttentionMaskOf(*n.op);
    const Layout heads = old.spec(n.inputs[0]).layout;
    auto qkv = std::make_shared<Value>();
    const auto turn = [&r, heads, group](GraphBuilder& g, Value x, Value positions, const Node* rope) {
      if (rope != nullptr) x = RopePacked(g, x, positions, RopeAttributesOf(*rope->op), group);
      r.SetLayout(x, heads);
      return x;
    };
    r.At(id, [&r, a = *match, qkv, turn, heads, head_dim, mask, group, id](GraphBuilder& g) {
      const Value split = SplitDim(g, EmitForward(r, g, a.p), 2, head_dim);
      r.SetLayout(split, heads);
      *qkv = turn(g, split, r.New(a.positions), a.rope);
      const PackedAttention out = AttentionPacked(g, *qkv, r.New(a.positions), mask, group);
      r.Replace({id, 0}, out.o_BSHD);
      r.Replace({id, 1}, out.lse_BSH);
    });
    if (match->bwd < 0) continue;
    r.At(match->bwd, [&r, a = *match, qkv, turn, heads, mask, group](GraphBuilder& g) {
      const std::vector<Value>& in = r.old().nodes[a.bwd].inputs;  // do, q, k, v, o, lse, positions
      const Value d =
          AttentionPackedBwd(g, r.New(in[0]), *qkv, r.New(in[4]), r.New(in[5]), r.New(a.positions), mask, group);
      r.SetLayout(d, heads);
      const Value dy = MergeDims(g, turn(g, d, r.New(a.positions), a.rope_bwd), 2);
      r.SetLayout(dy, r.old().spec(a.p.grads[0]).layout);
      EmitBackward(r, g, a.p, dy);
    });
  }
  return std::move(r).Run();
}

// ---- residual adds, norms, cross-entropy

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
    if (!Is(n, "add")) continue;
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

absl::StatusOr<Graph> FuseBiases(const Graph& old) {
  Rewrite r(old);
  for (NodeId id = 0; id < static_cast<NodeId>(old.nodes.size()); ++id) {
    const Node& n = old.nodes[id];
    if (!Is(n, "bias_add")) continue;
    const Node* linear = r.Maker(n.inputs[0], "linear");
    if (linear == nullptr || r.OnlyUser(n.inputs[0]) != id) continue;
    r.At(id, [&r, &n, linear, id](GraphBuilder& g) {
      r.Replace({id, 0}, LinearBias(g, r.New(linear->inputs[0]), r.New(linear->inputs[1]), r.New(n.inputs[1])));
    });
  }
  return std::move(r).Run();
}

// dx and dw of a norm, and the add that joins dx with the other gradient of x, if that is there by then.
absl::StatusOr<Graph> FuseNorms(const Graph& old, bool layer_norm) {
  const std::string_view dx_name = layer_norm ? "layer_norm_dx" : "rms_norm_dx";
  const std::string_view dw_name = layer_norm ? "layer_norm_dw" : "rms_norm_dw";
  Rewrite r(old);
  for (NodeId dx = 0; dx < static_cast<NodeId>(old.nodes.size()); ++dx) {
    const Node& n = old.nodes[dx];
    if (!Is(n, dx_name)) continue;
    std::vector<Value> wanted = n.inputs;  // dy, x, weight, [mean,] rstd: dw has no weight
    wanted.erase(wanted.begin() + 2);
    const NodeId dw = ReaderOf(r, n.inputs[0], dw_name, wanted, 0);
    if (dw < 0) continue;
    const NodeId first = std::min(dx, dw), add = r.OnlyUser({dx, 0}, "add");
    Value other;
    if (add >= 0) {
      const std::vector<Value>& in = old.nodes[add].inputs;
      other = in[0] == Value{dx, 0} ? in[1] : in[0];
      if (other.node >= first || other.node == dx) other = {};
    }
    r.At(first, [&r, &n, dx, dw, add, other, layer_norm](GraphBuilder& g) {
      const std::vector<Value> in = NewAll(r, n.inputs);
      const NormGrads d = layer_norm ? LayerNormBwd(g, in[0], in[1], in[2], in[3], in[4], r.New(other))
                                     : RmsNormBwd(g, in[0], in[1], in[2], in[3], r.New(other));
      r.Replace(other.valid() ? Value{add, 0} : Value{dx, 0}, d.dx_BSE);
      r.Replace({dw, 0}, d.dw_E);
      if (layer_norm) r.Replace({dw, 1}, d.db_E);
    });
  }
  return std::move(r).Run();
}

absl::StatusOr<Graph> FuseCrossEntropy(const Graph& old) {
  Rewrite r(old);
  for (NodeId id = 0; id < static_cast<NodeId>(old.nodes.size()); ++id) {
    const Node& n = old.nodes[id];
    if (!Is(n, "nll")) continue;
    const Node *max = r.Maker(n.inputs[0], "vocab_max"), *sum = r.Maker(n.inputs[1], "vocab_sum_exp"),
               *pick = r.Maker(n.inputs[2], "vocab_pick");
    if (max == nullptr || sum == nullptr || pick == nullptr) continue;
    const Value z = max->inputs[0], targets = pick->inputs[1], weights = n.inputs[3];
    if (sum->inputs[0] != z || sum->inputs[1] != n.inputs[0] || pick->inputs[0] != z) continue;
    const std::vector<Value> wanted = {z, n.inputs[0], n.inputs[1], targets, weights};
    const NodeId grad = ReaderOf(r, z, "softmax_grad", wanted, 0);
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
    ASSIGN_OR_RETURN(g, FuseAccumulations(g, kernels));
  }
  if (has({"linear_packed", "linear_packed_bias", "linear_packed_dx", "linear_dw_acc"})) {
    if (has({"rope_packed", "attention_packed", "attention_packed_bwd"})) {
      ASSIGN_OR_RETURN(g, FuseAttention(g, mesh));
    }
    if (has({"swiglu_packed", "swiglu_packed_dx"})) {
      ASSIGN_OR_RETURN(g, FuseSwiglu(g, mesh));
    }
  }
  if (has({"linear_add"})) {
    ASSIGN_OR_RETURN(g, FuseResiduals(g, has({"linear_bias_add"})));
  }
  if (has({"linear_bias"})) {
    ASSIGN_OR_RETURN(g, FuseBiases(g));
  }
  if (has({"rms_norm_bwd"})) {
    ASSIGN_OR_RETURN(g, FuseNorms(g, false));
  }
  if (has({"layer_norm_bwd"})) {
    ASSIGN_OR_RETURN(g, FuseNorms(g, true));
  }
  if (has({"softmax_nll", "softmax_nll_grad"})) {
    ASSIGN_OR_RETURN(g, FuseCrossEntropy(g));
  }
  return g;
}

}  // namespace strata
