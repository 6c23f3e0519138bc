#include "core/plan/fuse_packed.h"

#include <algorithm>
#include <set>

#include "core/graph/op.h"
#include "core/ops/bias.h"
#include "core/ops/flat.h"
#include "core/ops/fused.h"
#include "core/ops/linear.h"
#include "core/ops/move.h"

namespace strata {
namespace {

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

int64_t LocalElements(const Graph& g, const Mesh& mesh, Value v) {  // -1: the layout does not fit
  const absl::StatusOr<LocalBox> box = LocalBoxOf(g.spec(v).shape, g.spec(v).layout, mesh);
  return box.ok() ? box->shape.elements() : -1;
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
    const int64_t elements = LocalElements(g, mesh, v);
    if (elements < 0) return false;
    expected = at;
    expected.offset += elements;
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

// What is made of the gradient of product i: one dx, one dw and, with biases, one bias_grad.
bool MatchGradient(const Rewrite& r, size_t i, Packed& p, std::set<Value>& dx) {
  for (NodeId id : r.Users(p.grads[i])) {
    if (id < 0) return false;
    const Node& n = r.old().nodes[id];
    const std::string_view op = n.op->name();
    const bool first = (op == "linear_dw_acc" || op == "bias_grad_acc") && !FusedAttributesOf(*n.op).always_add;
    const bool adds = first && op == "linear_dw_acc" && n.inputs.size() == 3,
               adds_bias = first && op == "bias_grad_acc" && n.inputs.size() == 2;
    if (op == "linear_dx" && SameParameter(r.old(), n.inputs[1], p.weights[i])) {
      p.dx_weights.push_back(n.inputs[1]);
      dx.insert({id, 0});
    } else if ((adds || op == "linear_dw") && (!p.dw_x.valid() || n.inputs.back() == p.dw_x)) {
      p.dw_x = n.inputs.back();
      p.dw.push_back({id, 0});
      if (adds) p.accs.push_back(n.inputs[0]);
    } else if ((op == "bias_grad" || adds_bias) && !p.biases.empty()) {
      p.bias_grads.push_back({id, 0});
      if (adds_bias) p.bias_accs.push_back(n.inputs[0]);
    } else {
      return false;
    }
  }
  const size_t n = i + 1;
  return dx.size() == n && p.dx_weights.size() == n && p.dw.size() == n &&
         p.bias_grads.size() == (p.biases.empty() ? 0 : n);
}

// What adds up all of `dx`, through adds that nobody else reads.
bool MatchSum(const Rewrite& r, std::set<Value> dx, Packed& p) {
  while (dx.size() > 1) {
    const size_t before = dx.size();
    for (Value v : dx) {
      const NodeId id = r.OnlyUser(v, "add");
      if (id < 0) continue;
      const std::vector<Value>& in = r.old().nodes[id].inputs;
      const Value other = in[0] == v ? in[1] : in[0];
      if (other == v || !dx.contains(other) || r.OnlyUser(other) != id) continue;
      dx.erase(v);
      dx.erase(other);
      dx.insert({id, 0});
      break;
    }
    if (dx.size() == before) return false;
  }
  p.dx = *dx.begin();
  return true;
}

void EmitWeightGradients(Rewrite& r, GraphBuilder& g, const Packed& p, Value dy, Value& whole) {
  const Value x = r.New(p.dw_x);
  if (p.accs.empty()) {
    whole = g.Add(r.old().nodes[p.dw[0].node].op, {dy, x})[0];
    r.SetLayout(whole, r.old().spec(p.dw[0]).layout);
    return;
  }
  const std::vector<Value> sums = LinearDwAcc(g, r.New(p.accs), dy, x, false);
  for (size_t i = 0; i < p.dw.size(); ++i) r.Replace(p.dw[i], sums[i]);
}

}  // namespace

std::optional<PartRun> FindPartRun(const Rewrite& r, const Mesh& mesh, std::span<const Value> parts) {
  const NodeId id = r.OnlyUser(parts[0], "pack");
  if (id < 0 || !SameLayouts(r.old(), parts)) return std::nullopt;
  const Node& pack = r.old().nodes[id];
  const std::vector<int64_t>& offsets = AsPack(pack)->offsets();
  const auto at = std::search(pack.inputs.begin(), pack.inputs.end(), parts.begin(), parts.end());
  if (at == pack.inputs.end()) return std::nullopt;
  const size_t first = at - pack.inputs.begin();
  for (size_t i = 0; i < parts.size(); ++i) {
    if (r.OnlyUser(parts[i]) != id) return std::nullopt;
    if (i > 0 && offsets[first + i] != offsets[first + i - 1] + LocalElements(r.old(), mesh, parts[i - 1])) {
      return std::nullopt;
    }
  }
  return PartRun{id, first, parts.size()};
}

void JoinedParts::Emit(Rewrite& r) const {
  for (const auto& [pack, runs] : runs_) {
    r.At(pack, [&r, id = pack, runs = runs](GraphBuilder& g) {
      const Node& n = r.old().nodes[id];
      const PackOp& pack = *AsPack(n);
      std::vector<Value> parts;
      std::vector<int64_t> offsets;
      for (size_t i = 0; i < n.inputs.size();) {
        const auto run = runs.find(i);
        parts.push_back(run == runs.end() ? r.New(n.inputs[i]) : *run->second.value);
        offsets.push_back(pack.offsets()[i]);
        i += run == runs.end() ? 1 : run->second.count;
      }
      r.Replace({id, 0}, Pack(g, std::move(parts), std::move(offsets), n.outputs[0].shape[0], n.outputs[0].dtype));
    });
  }
}

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

bool MatchBackward(const Rewrite& r, const Mesh& mesh, std::vector<Value> grads, Packed& p) {
  p.grads = std::move(grads);
  std::set<Value> dx;
  for (size_t i = 0; i < p.grads.size(); ++i) {
    if (!MatchGradient(r, i, p, dx)) return false;
  }
  if (!Adjacent(r.old(), mesh, p.dx_weights) || !MatchSum(r, std::move(dx), p)) return false;
  if (p.accs.empty()) {
    const std::optional<PartRun> run = FindPartRun(r, mesh, p.dw);
    if (!run) return false;
    p.dw_parts = *run;
  } else if (p.accs.size() != p.dw.size() || !Adjacent(r.old(), mesh, p.accs)) {
    return false;
  }
  if (p.bias_grads.empty()) return true;
  if (!p.bias_accs.empty()) {
    return p.bias_accs.size() == p.bias_grads.size() && Adjacent(r.old(), mesh, p.bias_accs);
  }
  p.bias_parts = FindPartRun(r, mesh, p.bias_grads);
  return p.bias_parts || std::all_of(p.bias_grads.begin(), p.bias_grads.end(), [&](Value v) {  // equal slices
           return r.old().spec(v).shape == r.old().spec(p.bias_grads[0]).shape;
         });
}

Value EmitForward(Rewrite& r, GraphBuilder& g, const Packed& p) {
  const std::vector<Value> weights = r.New(p.weights);
  const Value y = p.biases.empty() ? LinearPacked(g, r.New(p.x), weights)
                                   : LinearPackedBias(g, r.New(p.x), weights, r.New(p.biases));
  r.SetLayout(y, r.old().spec(p.products[0]).layout);
  return y;
}

void EmitBackward(Rewrite& r, JoinedParts& joined, const Packed& p, NodeId backward,
                  std::function<Value(GraphBuilder&)> make_dy) {
  const auto dy = std::make_shared<Value>();
  r.At(backward, [&r, p, dy, make_dy = std::move(make_dy)](GraphBuilder& g) {
    *dy = make_dy(g);
    r.SetLayout(*dy, r.old().spec(p.grads[0]).layout);
    r.Replace(p.dx, LinearPackedDx(g, *dy, r.New(p.dx_weights)));
  });
  const auto dw = std::make_shared<Value>();
  if (p.accs.empty()) joined.Join(p.dw_parts, dw);
  r.At(std::min_element(p.dw.begin(), p.dw.end())->node,
       [&r, p, dy, dw](GraphBuilder& g) { EmitWeightGradients(r, g, p, *dy, *dw); });
  if (p.bias_grads.empty()) return;
  const NodeId first_bias = std::min_element(p.bias_grads.begin(), p.bias_grads.end())->node;
  if (!p.bias_accs.empty()) {
    r.At(first_bias, [&r, p, dy](GraphBuilder& g) {
      const std::vector<Value> sums = BiasGradAcc(g, r.New(p.bias_accs), *dy, false);
      for (size_t i = 0; i < sums.size(); ++i) r.Replace(p.bias_grads[i], sums[i]);
    });
    return;
  }
  const auto db = std::make_shared<Value>();
  if (p.bias_parts) joined.Join(*p.bias_parts, db);
  r.At(first_bias, [&r, p, dy, db](GraphBuilder& g) {
    *db = BiasGrad(g, *dy);
    r.SetLayout(*db, r.old().spec(p.bias_grads[0]).layout);
    const int n = static_cast<int>(p.bias_grads.size());
    for (int i = 0; i < n && !p.bias_parts; ++i) r.Replace(p.bias_grads[i], Slice(g, *db, 0, i, n));
  });
}

}  // namespace strata
