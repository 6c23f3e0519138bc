#include "core/graph/builder.h"
#include "parallel/shard/candidates.h"

namespace strata {
namespace {

std::vector<std::vector<ShardRule>> RulesOf(const Graph& graph) {
  std::vector<std::vector<ShardRule>> rules;
  for (const Node& n : graph.nodes) {
    std::vector<TensorSpec> in;
    for (Value v : n.inputs) in.push_back(graph.spec(v));
    rules.push_back(n.op->ShardRules(in));
  }
  return rules;
}

bool IsIdentity(const Node& n) { return n.op->name() == "identity"; }

// The gradient of `primal` that its pin holds for. A boundary is an identity, whose vjp is an identity on the whole
// gradient: pinning that one lets the parts of the gradient be added before they are converted.
Value GradientOf(const Graph& graph, Value primal, const std::map<Value, std::vector<Value>>& gradients) {
  const Node& n = graph.nodes[primal.node];
  const bool boundary = IsIdentity(n);
  const auto it = gradients.find(boundary ? n.inputs[0] : primal);
  if (it == gradients.end()) return {};
  for (Value g : it->second) {
    if (!boundary) continue;
    const Node& made_by = graph.nodes[g.node];
    if (IsIdentity(made_by) && graph.nodes[made_by.inputs[0].node].grad_of[made_by.inputs[0].output] == primal)
      return g;
  }
  return boundary ? Value{} : it->second.back();  // the last one is the sum of all parts
}

}  // namespace

ShardFacts::ShardFacts(const Graph& g, const Mesh& m, std::span<const Pin> p)
    : graph(g),
      mesh(m),
      pins(p),
      rules(RulesOf(g)),
      classes(g, rules),
      is_updated(g.states.size()),
      is_accumulator(g.nodes.size()),
      param_of(g.states.size(), -1) {
  std::map<Value, std::vector<Value>> gradients;  // by primal, in order
  for (NodeId id = 0; id < static_cast<NodeId>(g.nodes.size()); ++id) {
    const Node& n = g.nodes[id];
    for (size_t k = 0; k < n.outputs.size(); ++k) {
      if (n.grad_of[k].valid()) gradients[n.grad_of[k]].push_back({id, static_cast<int32_t>(k)});
    }
    if (const ReadOp* read = AsRead(n); read != nullptr) state_values[read->state()].push_back({id, 0});
  }
  for (const auto& [name, v] : g.named) {
    names[v].push_back(name);
    if (const Value gradient = GradientOf(g, v, gradients); gradient.valid()) names[gradient].push_back(name);
  }
  std::map<std::string, StateId> state_ids;
  for (size_t s = 0; s < g.states.size(); ++s) state_ids[g.states[s].name] = static_cast<StateId>(s);
  for (size_t s = 0; s < g.states.size(); ++s) {
    constexpr std::string_view kPrefix = "grad.";
    const std::string& name = g.states[s].name;
    if (g.states[s].role != Role::kGrad || name.substr(0, kPrefix.size()) != kPrefix) continue;
    if (const auto it = state_ids.find(name.substr(kPrefix.size())); it != state_ids.end()) param_of[s] = it->second;
  }
  for (const auto& [s, v] : g.updates) {
    state_values[s].push_back(v);
    is_updated[s] = true;
    if (g.states[s].role == Role::kGrad) is_accumulator[v.node] = true;
  }
}

}  // namespace strata
