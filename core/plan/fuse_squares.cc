#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

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

// What writes gradients, and what does so with the parts of their squares.
constexpr std::pair<std::string_view, std::string_view> kWriters[] = {{"linear_dw_acc", "linear_dw_acc_squares"},
                                                                      {"embedding_dw_acc", "embedding_dw_acc_squares"}};

bool Writes(const Node& n, const KernelTable& kernels) {
  for (const auto& [writer, with_squares] : kWriters) {
    if (n.op->name() == writer) return kernels.Has(with_squares) && !FusedAttributesOf(*n.op).always_add;
  }
  return false;
}

// The gradients that one writer makes, by flat state and the offset there.
using Written = std::map<std::pair<StateId, int64_t>, Value>;
Written WrittenOnce(const Graph& g, const KernelTable& kernels) {
  Written written;
  for (const auto& [id, v] : g.updates) {
    const State& state = g.states[id];
    if (state.storage < 0 || !Writes(g.nodes[v.node], kernels)) continue;
    written[{state.storage, state.storage_offset}] = v;
  }
  return written;
}

// The writers whose results the leaves read whole, and what of each leaf is left to read.
struct Match {
  std::vector<NodeId> writers;
  std::vector<std::vector<FlatRange>> rest;  // by leaf
};
absl::StatusOr<Match> MatchWriters(const Graph& g, const Mesh& mesh, const Written& written, const Sum& sum) {
  const auto writer_of = [&](const Leaf& leaf, const FlatRange& range) -> absl::StatusOr<NodeId> {
    const auto it = written.find({leaf.flat, range.offset});
    if (it == written.end()) return -1;
    ASSIGN_OR_RETURN(const LocalBox box, LocalBoxOf(g.spec(it->second).shape, g.spec(it->second).layout, mesh));
    return box.shape.elements() == range.count ? it->second.node : -1;
  };
  std::map<NodeId, size_t> found;  // results of a writer
  for (const Leaf& leaf : sum.leaves) {
    for (const FlatRange& range : SumSquaresRanges(*g.nodes[leaf.sum_squares].op)) {
      ASSIGN_OR_RETURN(const NodeId writer, writer_of(leaf, range));
      if (writer >= 0) ++found[writer];
    }
  }
  std::erase_if(found, [&](const auto& f) { return f.second != g.nodes[f.first].outputs.size(); });
  Match m;
  for (const auto& [writer, results] : found) m.writers.push_back(writer);
  for (const Leaf& leaf : sum.leaves) {
    std::vector<FlatRange>& rest = m.rest.emplace_back();
    for (const FlatRange& range : SumSquaresRanges(*g.nodes[leaf.sum_squares].op)) {
      ASSIGN_OR_RETURN(const NodeId writer, writer_of(leaf, range));
      if (!found.contains(writer)) rest.push_back(range);
    }
  }
  return m;
}

// The parts of all writers of a sum, in one state, and a writer's view of it.
State AllParts(const TensorSpec& sum, const std::string& name, size_t writers) {
  return {name, Role::kBuffer, {sum.dtype, {static_cast<int64_t>(writers) * kSquareParts}, sum.layout}};
}
State PartsOf(const TensorSpec& sum, const std::string& name, size_t writer, StateId all) {
  return {absl::StrFormat("%s.%d", name, writer),
          Role::kBuffer,
          {sum.dtype, {kSquareParts}, sum.layout},
          all,
          static_cast<int64_t>(writer) * kSquareParts};
}

void EmitWriter(Rewrite& r, const TensorSpec& spec, const std::string& name, const Match& m, size_t i) {
  r.At(m.writers[i], [&r, spec, name, i, count = m.writers.size(), id = m.writers[i]](GraphBuilder& g) {
    const Node& n = r.old().nodes[id];
    const std::vector<Value> in = r.New(n.inputs);
    const size_t accs = n.outputs.size();
    const StateId state = g.Declare(PartsOf(spec, name, i, g.Declare(AllParts(spec, name, count))));
    const Value parts = g.Read(state);
    const SquaredSums made = n.op->name() == "linear_dw_acc"
                                 ? LinearDwAccSquares(g, std::span(in).first(accs), parts, in[accs], in[accs + 1])
                                 : EmbeddingDwAccSquares(g, in[0], parts, in[1], in[2]);
    if (!made.squares.valid()) return;
    for (size_t k = 0; k < accs; ++k) r.Replace({id, static_cast<int32_t>(k)}, made.accs[k]);
    r.SetLayout(made.squares, spec.layout);
    g.Update(state, made.squares);
  });
}

void EmitTotal(Rewrite& r, const TensorSpec& spec, const std::string& name, const Sum& sum, const Match& m) {
  r.At(sum.root, [&r, spec, name, sum, m](GraphBuilder& g) {
    std::vector<SquaredRanges> rest;
    for (size_t i = 0; i < sum.leaves.size(); ++i) {
      const Node& leaf = r.old().nodes[sum.leaves[i].sum_squares];
      if (!m.rest[i].empty()) rest.push_back({r.New(leaf.inputs[0]), m.rest[i]});
    }
    const Value parts = g.Read(g.Declare(AllParts(spec, name, m.writers.size())));
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
  if (!kernels.Has("total_squares")) return local;
  Rewrite r(local);
  Written written = WrittenOnce(local, kernels);
  int fused = 0;
  for (const Sum& sum : SumsOf(r)) {
    ASSIGN_OR_RETURN(const Match m, MatchWriters(local, mesh, written, sum));
    if (m.writers.empty()) continue;
    const std::string name = absl::StrFormat("grad_squares%d", fused++);
    const TensorSpec spec = local.spec({sum.root, 0});
    for (size_t i = 0; i < m.writers.size(); ++i) EmitWriter(r, spec, name, m, i);
    EmitTotal(r, spec, name, sum, m);
    // A writer has parts for one sum.
    std::erase_if(written, [&](const auto& w) { return std::ranges::count(m.writers, w.second.node) > 0; });
  }
  return std::move(r).Run();
}

}  // namespace strata
