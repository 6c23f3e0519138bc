#include "tests/testing/shard_checks.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/graph/builder.h"
#include "core/kernels/cpu_util.h"

namespace strata::testing {
namespace {

using Parts = std::vector<Tensor>;  // by rank

// Element i of part `rank` is element Whole(i) of the whole tensor, sharded along `dim`.
struct ShardIndex {
  OuterInner part;
  int64_t whole_n, first;
  ShardIndex(const Shape& shape, int dim, int rank, int ranks)
      : part(SplitAt(shape, dim)), whole_n(part.n * ranks), first(part.n * rank) {}
  int64_t Whole(int64_t i) const {
    const int64_t outer = i / (part.n * part.inner), rest = i % (part.n * part.inner);
    return (outer * whole_n + first) * part.inner + rest;
  }
};

absl::StatusOr<Parts> Cut(const Tensor& x, Placement p, int ranks) {
  Parts parts(ranks, x);
  if (p.is_replicate()) return parts;
  if (p.is_partial()) {
    if (p.reduce != ReduceOp::kSum) return absl::InternalError("a Partial(max) operand");
    for (int r = 1; r < ranks; ++r) {
      parts[r] = Tensor::Random(x.dtype, x.shape, 77 + r);
      for (int64_t i = 0; i < x.size(); ++i) parts[0].set(i, parts[0].at(i) - parts[r].at(i));
    }
    return parts;
  }
  Shape shape = x.shape;
  shape[p.dim] /= ranks;
  for (int r = 0; r < ranks; ++r) {
    const ShardIndex index(shape, p.dim, r, ranks);
    parts[r] = Tensor::Zeros(x.dtype, shape);
    for (int64_t i = 0; i < parts[r].size(); ++i) parts[r].set(i, x.at(index.Whole(i)));
  }
  return parts;
}

absl::StatusOr<Tensor> Join(const Parts& parts, Placement p, const Shape& global) {
  const int ranks = static_cast<int>(parts.size());
  Tensor whole = Tensor::Zeros(parts[0].dtype, global);
  if (p.is_shard()) {
    for (int r = 0; r < ranks; ++r) {
      const ShardIndex index(parts[r].shape, p.dim, r, ranks);
      for (int64_t i = 0; i < parts[r].size(); ++i) whole.set(index.Whole(i), parts[r].at(i));
    }
    return whole;
  }
  whole = parts[0];
  for (int r = 1; r < ranks; ++r) {
    if (p.is_replicate() && parts[r].data != whole.data) return absl::InternalError("replicas differ");
    if (!p.is_partial()) continue;
    for (int64_t i = 0; i < whole.size(); ++i) {
      const double a = whole.at(i), b = parts[r].at(i);
      whole.set(i, p.reduce == ReduceOp::kMax ? std::max(a, b) : a + b);
    }
  }
  return whole;
}

bool Divides(const ShardRule& rule, const Graph& graph, const Node& node, int ranks) {
  const auto divides = [&](Placement p, const Shape& shape) { return !p.is_shard() || shape[p.dim] % ranks == 0; };
  bool all = true;
  for (size_t i = 0; i < rule.in.size(); ++i) all &= divides(rule.in[i], graph.spec(node.inputs[i]).shape);
  for (size_t k = 0; k < rule.out.size(); ++k) all &= divides(rule.out[k], node.outputs[k].shape);
  return all;
}

std::string ToString(const ShardRule& rule) {
  std::string s;
  for (Placement p : rule.in) s += strata::ToString(p) + " ";
  s += "->";
  for (Placement p : rule.out) s += " " + strata::ToString(p);
  return s;
}

absl::Status CheckRule(Graph graph, NodeId id, const ShardRule& rule, const std::vector<Tensor>& inputs,
                       const std::vector<Tensor>& expected, int ranks) {
  const Node& node = graph.nodes[id];
  std::vector<Parts> in;
  for (size_t i = 0; i < inputs.size(); ++i) {
    graph.nodes[node.inputs[i].node].outputs[node.inputs[i].output].layout[0] = rule.in[i];
    ASSIGN_OR_RETURN(in.emplace_back(), Cut(inputs[i], rule.in[i], ranks));
  }
  for (size_t k = 0; k < rule.out.size(); ++k) graph.nodes[id].outputs[k].layout[0] = rule.out[k];
  std::vector<Parts> out(rule.out.size());
  for (int r = 0; r < ranks; ++r) {
    ASSIGN_OR_RETURN(const Mesh mesh, Mesh::Make({{"axis", ranks}}, ranks, r));
    std::map<std::string, Tensor> bindings;
    for (size_t i = 0; i < inputs.size(); ++i) bindings[absl::StrFormat("in%d", i)] = in[i][r];
    EvalOptions options;
    options.mesh = &mesh;
    ASSIGN_OR_RETURN(const auto values, Evaluate(graph, bindings, options));
    for (size_t k = 0; k < out.size(); ++k) out[k].push_back(values[id][k]);
  }
  for (size_t k = 0; k < out.size(); ++k) {
    ASSIGN_OR_RETURN(const Tensor whole, Join(out[k], rule.out[k], graph.nodes[id].outputs[k].shape));
    const double error = MaxAbsDiff(whole, expected[k]) / std::max(1.0, MaxAbs(expected[k]));
    if (!(error <= 1e-12)) return absl::InternalError(absl::StrFormat("output %d differs by %g", k, error));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckShardRules(const GraphFn& fn, const std::vector<Tensor>& inputs, int num_rules, int ranks) {
  GraphBuilder g;
  std::vector<Value> args;
  std::map<std::string, Tensor> bindings;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const std::string name = absl::StrFormat("in%d", i);
    args.push_back(g.Input(name, {inputs[i].dtype, inputs[i].shape, {}}));
    bindings[name] = inputs[i];
  }
  const std::vector<Value> outputs = fn(g, args);
  ASSIGN_OR_RETURN(const Graph graph, std::move(g).Build());
  const NodeId id = outputs[0].node;
  const Node& node = graph.nodes[id];
  if (node.inputs != args) return absl::InternalError("fn is not one op on its arguments in order");
  ASSIGN_OR_RETURN(const auto whole, Evaluate(graph, bindings));
  std::vector<TensorSpec> in;
  for (Value v : node.inputs) in.push_back(graph.spec(v));
  int tried = 0;
  for (const ShardRule& rule : node.op->ShardRules(in)) {
    const std::string where = absl::StrFormat("%s %s", node.op->name(), ToString(rule));
    if (rule.expand) continue;
    if (rule.in.size() != node.inputs.size() || rule.out.size() != node.outputs.size()) {
      return absl::InternalError(where + ": another arity than the op");
    }
    if (!Divides(rule, graph, node, ranks)) continue;
    ++tried;
    RETURN_IF_ERROR(Annotate(CheckRule(graph, id, rule, inputs, whole[id], ranks), where));
  }
  if (tried == num_rules) return absl::OkStatus();
  return absl::InternalError(absl::StrFormat("%s: %d rules tried, not %d", node.op->name(), tried, num_rules));
}

}  // namespace strata::testing
