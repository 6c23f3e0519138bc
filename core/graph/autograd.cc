#include "core/graph/autograd.h"

#include <set>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/graph/op.h"
#include "core/ops/elementwise.h"
#include "core/ops/embedding.h"
#include "core/ops/linear.h"

namespace strata {
namespace {

// Gradients as they add up. Those of one value that ops of one kind make, one after the other, are summed first: the partial
// sums of products that read one x then meet a single collective, and not one each before they are added to another gradient.
class Sums {
 public:
  Sums(GraphBuilder& g, Gradients& grads) : g_(g), grads_(grads) {}

  // The gradient so far; none where there is none.
  Value Of(Value primal) {
    const auto it = runs_.find(primal);
    if (it != runs_.end()) {
      Value& total = grads_[primal];
      g_.PushLike(g_.graph().nodes[it->second.user]);
      total = total.valid() ? Sum(total, it->second.sum, primal) : it->second.sum;
      g_.Pop();
      runs_.erase(it);
    }
    const auto total = grads_.find(primal);
    return total == grads_.end() ? Value{} : total->second;
  }

  // `part` comes from the forward node `user`.
  void Add(Value primal, Value part, NodeId user) {
    Mark(part, primal);
    const std::string_view op = g_.graph().nodes[part.node].op->name();
    if (const auto run = runs_.find(primal); run != runs_.end() && run->second.op == op) {
      run->second = {Sum(run->second.sum, part, primal), op, user};
      return;
    }
    Of(primal);
    runs_[primal] = {part, op, user};
  }

  void Finish() {
    while (!runs_.empty()) Of(runs_.begin()->first);
  }

 private:
  struct Run {
    Value sum;
    std::string_view op;  // of each summand
    NodeId user = -1;     // the last
  };
  Value Sum(Value a, Value b, Value primal) {
    const Value sum = strata::Add(g_, a, b);
    if (sum.valid()) Mark(sum, primal);
    return sum;
  }
  void Mark(Value grad, Value primal) {
    Value& of = g_.mutable_graph().nodes[grad.node].grad_of[grad.output];
    if (!of.valid()) of = primal;
  }

  GraphBuilder& g_;
  Gradients& grads_;
  std::map<Value, Run> runs_;  // by primal
};

absl::Status BackwardNode(GraphBuilder& g, NodeId id, Sums& sums) {
  const Node node = g.graph().nodes[id];  // a copy: the vector grows
  if (node.inputs.empty()) return absl::OkStatus();
  std::vector<Value> outputs, dy;
  bool any = false;
  for (size_t i = 0; i < node.outputs.size(); ++i) {
    outputs.push_back({id, static_cast<int32_t>(i)});
    dy.push_back(sums.Of(outputs.back()));
    any |= dy.back().valid();
  }
  if (!any) return absl::OkStatus();
  g.PushLike(node);
  absl::StatusOr<std::vector<Value>> dx = node.op->Vjp({g, node, node.inputs, outputs, dy});
  if (!dx.ok()) return Annotate(dx.status(), absl::StrFormat("%s:%d: %s", node.loc.file, node.loc.line, node.scope));
  RETURN_IF_ERROR(g.status());
  if (dx->size() != node.inputs.size())
    return absl::InternalError(absl::StrFormat("vjp of %s: wrong arity", node.op->name()));
  for (size_t i = 0; i < dx->size(); ++i) {
    if ((*dx)[i].valid()) sums.Add(node.inputs[i], (*dx)[i], id);
    RETURN_IF_ERROR(g.status());
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
  Sums sums(g, grads);
  for (NodeId id = static_cast<NodeId>(g.graph().nodes.size()) - 1; id >= first; --id) {
    RETURN_IF_ERROR(BackwardNode(g, id, sums));
  }
  sums.Finish();
  return g.status();
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

Graph RoundGradients(Graph graph) {
  std::map<Value, int> readers;
  for (const Node& n : graph.nodes) {
    for (Value v : n.inputs) ++readers[v];
  }
  std::map<std::string, DType> params;
  for (const State& s : graph.states) {
    if (s.role == Role::kParam) params["grad." + s.name] = s.spec.dtype;
  }
  for (const auto& [id, sum] : graph.updates) {
    State& state = graph.states[id];
    Node& accumulate = graph.nodes[sum.node];
    const auto param = params.find(state.name);
    if (state.role != Role::kGrad || param == params.end() || param->second != DType::kBF16) continue;
    Node& made = graph.nodes[accumulate.inputs[1].node];
    if (accumulate.op->name() != "accumulate" || made.op->name() == "add") continue;
    state.spec.dtype = DType::kBF16;
    graph.nodes[accumulate.inputs[0].node].outputs[0].dtype = accumulate.outputs[0].dtype = DType::kBF16;
    const bool product = made.op->name() == "linear_dw";
    if ((!product && made.op->name() != "embedding_dw") || readers[accumulate.inputs[1]] > 1) continue;
    made.op = product ? RoundedLinearDw() : RoundedEmbeddingDw();
    made.outputs[0].dtype = DType::kBF16;
  }
  return graph;
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
