#include "core/graph/autograd.h"

#include <set>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/graph/op.h"
#include "core/ops/elementwise.h"

namespace strata {
namespace {

absl::Status BackwardNode(GraphBuilder& g, NodeId id, Gradients& grads) {
  const Node node = g.graph().nodes[id];  // a copy: the vector grows
  if (node.inputs.empty()) return absl::OkStatus();
  std::vector<Value> outputs, dy;
  bool any = false;
  for (size_t i = 0; i < node.outputs.size(); ++i) {
    outputs.push_back({id, static_cast<int32_t>(i)});
    const auto it = grads.find(outputs.back());
    dy.push_back(it == grads.end() ? Value{} : it->second);
    any |= dy.back().valid();
  }
  if (!any) return absl::OkStatus();
  g.PushLike(node);
  absl::StatusOr<std::vector<Value>> dx = node.op->Vjp({g, node, node.inputs, outputs, dy});
  if (!dx.ok()) return Annotate(dx.status(), absl::StrFormat("%s:%d: %s", node.loc.file, node.loc.line, node.scope));
  RETURN_IF_ERROR(g.status());
  if (dx->size() != node.inputs.size())
    return absl::InternalError(absl::StrFormat("vjp of %s: wrong arity", node.op->name()));
  const auto mark = [&](Value grad, Value primal) {
    Value& of = g.mutable_graph().nodes[grad.node].grad_of[grad.output];
    if (!of.valid()) of = primal;
  };
  for (size_t i = 0; i < dx->size(); ++i) {
    const Value primal = node.inputs[i], part = (*dx)[i];
    if (!part.valid()) continue;
    mark(part, primal);
    Value& total = grads[primal];
    total = total.valid() ? Add(g, total, part) : part;
    RETURN_IF_ERROR(g.status());
    mark(total, primal);
  }
  g.Pop();
  return absl::OkStatus();
}

// kWeightGrad: nodes all of whose outputs that anybody uses are gradients of `wrt`.
void MarkWeightGradients(Graph& graph, std::span<const Value> wrt) {
  const std::set<Value> parameters(wrt.begin(), wrt.end());
  for (Node& n : graph.nodes) {
    if (n.phase != Phase::kInputGrad) continue;
    bool all = true;
    for (Value of : n.grad_of) all &= of.valid() && parameters.contains(of);
    if (all) n.phase = Phase::kWeightGrad;
  }
}

// Rebuilds a graph node by node; `emit(builder, node, mapped inputs)` returns the values that stand for the node's outputs.
using Emit = std::function<absl::StatusOr<std::vector<Value>>(GraphBuilder&, NodeId, const Node&, std::vector<Value>)>;
absl::StatusOr<Graph> Rebuild(const Graph& graph, const Emit& emit) {
  GraphBuilder g;
  g.mutable_graph().states = graph.states;
  std::vector<std::vector<Value>> map(graph.nodes.size());
  const auto mapped = [&](Value v) { return v.valid() ? map[v.node][v.output] : Value{}; };
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& n = graph.nodes[i];
    std::vector<Value> inputs;
    for (Value v : n.inputs) inputs.push_back(mapped(v));
    ASSIGN_OR_RETURN(map[i], emit(g, static_cast<NodeId>(i), n, std::move(inputs)));
    RETURN_IF_ERROR(g.status());
    for (size_t k = 0; k < n.outputs.size(); ++k) {
      const Value v = map[i][k];
      g.mutable_graph().nodes[v.node].outputs[v.output].layout = n.outputs[k].layout;
      if (n.grad_of[k].valid()) g.mutable_graph().nodes[v.node].grad_of[v.output] = mapped(n.grad_of[k]);
    }
  }
  Graph& out = g.mutable_graph();
  for (const auto& [name, v] : graph.inputs) out.inputs[name] = mapped(v);
  for (const auto& [name, v] : graph.outputs) out.outputs[name] = mapped(v);
  for (const auto& [name, v] : graph.named) out.named[name] = mapped(v);
  for (const auto& [s, v] : graph.updates) out.updates.emplace_back(s, mapped(v));
  return std::move(g).Build();
}

}  // namespace

absl::Status Backward(GraphBuilder& g, NodeId first, Gradients& grads) {
  for (NodeId id = static_cast<NodeId>(g.graph().nodes.size()) - 1; id >= first; --id) {
    RETURN_IF_ERROR(BackwardNode(g, id, grads));
  }
  return absl::OkStatus();
}

absl::StatusOr<Graph> Differentiate(const Graph& forward, Value loss, Value seed, std::span<const Value> wrt) {
  if (forward.spec(loss).shape.rank != 0 || forward.spec(seed).shape.rank != 0) {
    return absl::InvalidArgumentError("Differentiate: loss and seed must be scalars of shape []");
  }
  return Differentiate(forward, {{loss, seed}}, wrt);
}

absl::StatusOr<Graph> Differentiate(const Graph& forward, Gradients grads, std::span<const Value> wrt) {
  GraphBuilder g(forward);
  g.set_phase(Phase::kInputGrad);
  RETURN_IF_ERROR(Backward(g, 0, grads));
  for (size_t i = 0; i < wrt.size(); ++i) {
    if (const auto it = grads.find(wrt[i]); it != grads.end()) g.Output(absl::StrFormat("grad.%d", i), it->second);
  }
  MarkWeightGradients(g.mutable_graph(), wrt);
  ASSIGN_OR_RETURN(const Graph graph, std::move(g).Build());
  return Prune(graph);
}

absl::StatusOr<Graph> AccumulateGradients(const Graph& graph, std::span<const StateId> params) {
  std::map<NodeId, std::vector<std::pair<StateId, Value>>> finished;  // by producing node
  for (size_t i = 0; i < params.size(); ++i) {
    const auto it = graph.outputs.find(absl::StrFormat("grad.%d", i));
    if (it != graph.outputs.end()) finished[it->second.node].emplace_back(params[i], it->second);
  }
  ASSIGN_OR_RETURN(
      Graph result,
      Rebuild(
          graph,
          [&](GraphBuilder& g, NodeId id, const Node& n, std::vector<Value> in) -> absl::StatusOr<std::vector<Value>> {
            std::vector<Value> out = g.Clone(n, std::move(in));
            const auto it = finished.find(id);
            if (it == finished.end()) return out;
            g.PushLike(n);
            g.set_phase(n.phase);
            for (const auto& [param, v] : it->second) {
              const State& p = g.graph().states[param];
              const StateId acc =
                  g.Declare({"grad." + p.name, Role::kGrad, {AccumulatorOf(p.spec.dtype), p.spec.shape, {}}});
              g.Update(acc, Accumulate(g, g.Read(acc), out[v.output]));
            }
            g.Pop();
            return out;
          }));
  for (size_t i = 0; i < params.size(); ++i) result.outputs.erase(absl::StrFormat("grad.%d", i));
  return result;
}

absl::StatusOr<Graph> DecomposeOps(const Graph& graph, const std::function<bool(const Op&)>& replace) {
  ASSIGN_OR_RETURN(Graph result, Rebuild(graph,
                                         [&](GraphBuilder& g, NodeId, const Node& n,
                                             std::vector<Value> in) -> absl::StatusOr<std::vector<Value>> {
                                           if (!replace(*n.op)) return g.Clone(n, std::move(in));
                                           g.PushLike(n);
                                           g.set_phase(n.phase);
                                           absl::StatusOr<std::vector<Value>> out = n.op->Decompose(g, in);
                                           g.Pop();
                                           return out;
                                         }));
  return Prune(result);
}

}  // namespace strata
