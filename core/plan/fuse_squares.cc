#include <map>
#include <set>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/graph/op.h"
#include "core/ops/elementwise.h"
#include "core/ops/fused.h"
#include "core/ops/optimizer.h"
#include "core/ops/squares.h"
#include "core/plan/fuse.h"
#include "core/plan/rewrite.h"

namespace strata {
namespace {

// Squares of one flat state of gradients.
struct Leaf {
  NodeId sum_squares = -1;
  StateId flat = -1;
};
// What is added up to the value of node `root`, through adds with no other reader.
struct Sum {
  NodeId root = -1;
  std::vector<Leaf> leaves;
  std::vector<Value> others;
};

// What reads gradients as they were written; -1: they went through a collective, or are none.
StateId GradientsIn(const Graph& g, const Node& sum_squares) {
  const ReadOp* read = AsRead(g.nodes[sum_squares.inputs[0].node]);
  return read != nullptr && g.states[read->state()].role == Role::kGrad ? read->state() : -1;
}

void Gather(const Rewrite& r, Value v, Sum& sum) {
  const Node& n = r.old().nodes[v.node];
  if (n.op->name() == "add" && (v.node == sum.root || r.OnlyUser(v) >= 0)) {
    for (Value in : n.inputs) Gather(r, in, sum);
    return;
  }
  const bool alike = r.old().spec(v).layout == r.old().spec({sum.root, 0}).layout;
  const StateId flat = n.op->name() == "sum_squares" && alike ? GradientsIn(r.old(), n) : -1;
  if (flat >= 0 && (v.node == sum.root || r.OnlyUser(v) >= 0)) {
    sum.leaves.push_back({v.node, flat});
  } else {
    sum.others.push_back(v);
  }
}

std::vector<Sum> SumsOf(const Rewrite& r) {
  std::set<NodeId> roots;
  for (NodeId id = 0; id < static_cast<NodeId>(r.old().nodes.size()); ++id) {
    if (r.old().nodes[id].op->name() != "sum_squares") continue;
    NodeId root = id;
    for (NodeId add = r.OnlyUser({root, 0}, "add"); add >= 0; add = r.OnlyUser({root, 0}, "add")) root = add;
    roots.insert(root);
  }
  std::vector<Sum> sums;
  for (NodeId root : roots) {
    Gather(r, {root, 0}, sums.emplace_back(Sum{.root = root}));
  }
  return sums;
}

// The results of products that write a gradient once, by flat state and the offset there.
using Written = std::map<std::pair<StateId, int64_t>, Value>;
Written WrittenByProducts(const Graph& g) {
  Written written;
  for (const auto& [id, v] : g.updates) {
    const State& state = g.states[id];
    const Node& n = g.nodes[v.node];
    if (state.storage < 0 || n.op->name() != "linear_dw_acc" || FusedAttributesOf(*n.op).always_add) continue;
    written[{state.storage, state.storage_offset}] = v;
  }
  return written;
}

// The products whose results the leaves read whole, and what of each leaf is left to read.
struct Match {
  std::vector<NodeId> products;
  std::vector<std::vector<FlatRange>> rest;  // by leaf
};
absl::StatusOr<Match> MatchProducts(const Graph& g, const Mesh& mesh, const Written& written, const Sum& sum) {
  const auto product_of = [&](const Leaf& leaf, const FlatRange& range) -> absl::StatusOr<NodeId> {
    const auto it = written.find({leaf.flat, range.offset});
    if (it == written.end()) return -1;
    ASSIGN_OR_RETURN(const LocalBox box, LocalBoxOf(g.spec(it->second).shape, g.spec(it->second).layout, mesh));
    return box.shape.elements() == range.count ? it->second.node : -1;
  };
  std::map<NodeId, size_t> found;  // results of a product
  for (const Leaf& leaf : sum.leaves) {
    for (const FlatRange& range : SumSquaresRanges(*g.nodes[leaf.sum_squares].op)) {
      ASSIGN_OR_RETURN(const NodeId product, product_of(leaf, range));
      if (product >= 0) ++found[product];
    }
  }
  std::erase_if(found, [&](const auto& f) { return f.second != g.nodes[f.first].outputs.size(); });
  Match m;
  for (const auto& [product, results] : found) m.products.push_back(product);
  for (const Leaf& leaf : sum.leaves) {
    std::vector<FlatRange>& rest = m.rest.emplace_back();
    for (const FlatRange& range : SumSquaresRanges(*g.nodes[leaf.sum_squares].op)) {
      ASSIGN_OR_RETURN(const NodeId product, product_of(leaf, range));
      if (!found.contains(product)) rest.push_back(range);
    }
  }
  return m;
}

// The parts of all products of a sum, in one state, and a product's view of it.
State AllParts(const TensorSpec& sum, const std::string& name, size_t products) {
  return {name, Role::kBuffer, {sum.dtype, {static_cast<int64_t>(products) * kSquareParts}, sum.layout}};
}
State PartsOf(const TensorSpec& sum, const std::string& name, size_t product, StateId all) {
  return {absl::StrFormat("%s.%d", name, product),
          Role::kBuffer,
          {sum.dtype, {kSquareParts}, sum.layout},
          all,
          static_cast<int64_t>(product) * kSquareParts};
}

void EmitProduct(Rewrite& r, const TensorSpec& spec, const std::string& name, const Match& m, size_t i) {
  r.At(m.products[i], [&r, spec, name, i, count = m.products.size(), id = m.products[i]](GraphBuilder& g) {
    const std::vector<Value> in = r.New(r.old().nodes[id].inputs);
    const size_t accs = in.size() - 2;
    const StateId parts = g.Declare(PartsOf(spec, name, i, g.Declare(AllParts(spec, name, count))));
    const SquaredSums made = LinearDwAccSquares(g, std::span(in).first(accs), g.Read(parts), in[accs], in[accs + 1]);
    if (!made.squares.valid()) return;
    for (size_t k = 0; k < accs; ++k) r.Replace({id, static_cast<int32_t>(k)}, made.accs[k]);
    r.SetLayout(made.squares, spec.layout);
    g.Update(parts, made.squares);
  });
}

void EmitTotal(Rewrite& r, const TensorSpec& spec, const std::string& name, const Sum& sum, const Match& m) {
  r.At(sum.root, [&r, spec, name, sum, m](GraphBuilder& g) {
    std::vector<SquaredRanges> rest;
    for (size_t i = 0; i < sum.leaves.size(); ++i) {
      const Node& leaf = r.old().nodes[sum.leaves[i].sum_squares];
      if (!m.rest[i].empty()) rest.push_back({r.New(leaf.inputs[0]), m.rest[i]});
    }
    const Value parts = g.Read(g.Declare(AllParts(spec, name, m.products.size())));
    Value total = TotalSquares(g, parts, std::move(rest));
    for (Value other : sum.others) {
      r.SetLayout(total, spec.layout);
      total = Add(g, total, r.New(other));
    }
    r.Replace({sum.root, 0}, total);
  });
}

}  // namespace

absl::StatusOr<Graph> FuseSquares(Graph local, const Mesh& mesh, const KernelTable& kernels) {
  if (!kernels.Has("linear_dw_acc_squares") || !kernels.Has("total_squares")) return local;
  Rewrite r(local);
  const Written written = WrittenByProducts(local);
  int fused = 0;
  for (const Sum& sum : SumsOf(r)) {
    ASSIGN_OR_RETURN(const Match m, MatchProducts(local, mesh, written, sum));
    if (m.products.empty()) continue;
    const std::string name = fused == 0 ? "grad_squares" : absl::StrFormat("grad_squares.of%d", fused);
    ++fused;
    const TensorSpec spec = local.spec({sum.root, 0});
    for (size_t i = 0; i < m.products.size(); ++i) EmitProduct(r, spec, name, m, i);
    EmitTotal(r, spec, name, sum, m);
  }
  return std::move(r).Run();
}

}  // namespace strata
