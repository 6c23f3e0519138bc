#include "core/graph/graph.h"

#include <set>
#include <tuple>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/graph/builder.h"
#include "core/graph/op.h"

namespace strata {
namespace {

std::string Describe(const Graph& g, NodeId id) {
  const Node& n = g.nodes[id];
  return absl::StrFormat("%%%d = %s in %s (%s:%d)", id, n.op->name(), n.scope, n.loc.file, n.loc.line);
}

bool Exists(const Graph& g, Value v) {
  return v.node >= 0 && v.node < static_cast<NodeId>(g.nodes.size()) && v.output >= 0 &&
         v.output < static_cast<int32_t>(g.nodes[v.node].outputs.size());
}

absl::Status VerifyNode(const Graph& g, NodeId id) {
  const Node& n = g.nodes[id];
  std::vector<TensorSpec> in;
  for (Value v : n.inputs) {
    if (!Exists(g, v) || v.node >= id)
      return absl::InternalError(Describe(g, id) + ": an input is not defined before it");
    in.push_back(g.spec(v));
  }
  if (n.grad_of.size() != n.outputs.size()) return absl::InternalError(Describe(g, id) + ": grad_of has another arity");
  ASSIGN_OR_RETURN(const std::vector<TensorSpec> out, n.op->Infer(in));
  bool same = out.size() == n.outputs.size();
  for (size_t i = 0; same && i < out.size(); ++i) {
    same = out[i].dtype == n.outputs[i].dtype && out[i].shape == n.outputs[i].shape;
  }
  if (!same) return absl::InternalError(Describe(g, id) + ": Infer disagrees with the recorded outputs");
  if (const ReadOp* read = AsRead(n); read != nullptr && read->state() >= static_cast<StateId>(g.states.size())) {
    return absl::InternalError(Describe(g, id) + ": reads an unknown state");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Verify(const Graph& g) {
  for (NodeId id = 0; id < static_cast<NodeId>(g.nodes.size()); ++id) RETURN_IF_ERROR(VerifyNode(g, id));
  for (const auto* values : {&g.inputs, &g.outputs, &g.named}) {
    for (const auto& [name, v] : *values) {
      if (!Exists(g, v)) return absl::InternalError(absl::StrFormat("%s names a value that does not exist", name));
    }
  }
  std::set<std::tuple<StateId, int16_t, int16_t>> updated;
  for (const auto& [state, v] : g.updates) {
    if (state < 0 || state >= static_cast<StateId>(g.states.size()) || !Exists(g, v)) {
      return absl::InternalError("an update names a state or value that does not exist");
    }
    const State& s = g.states[state];
    const Node& by = g.nodes[v.node];
    if (!updated.insert({state, by.replica, by.stage}).second)
      return absl::InternalError(absl::StrFormat("state %s is updated twice", s.name));
    if (g.spec(v).dtype != s.spec.dtype || g.spec(v).shape != s.spec.shape) {
      return absl::InternalError(absl::StrFormat("the update of state %s is %s%s, the state %s%s", s.name,
                                                 Name(g.spec(v).dtype), ToString(g.spec(v).shape), Name(s.spec.dtype),
                                                 ToString(s.spec.shape)));
    }
  }
  return absl::OkStatus();
}

const char* Name(Phase phase) {
  constexpr const char* kName[] = {"F", "I", "W", "unshard", "reduce", "step"};
  return kName[static_cast<int>(phase)];
}

std::string Print(const Graph& g, const Mesh* mesh) {
  const auto spec = [&](const TensorSpec& t) {
    return absl::StrFormat("%s%s%s", Name(t.dtype), ToString(t.shape),
                           mesh == nullptr ? "" : " " + ToString(t.layout, *mesh));
  };
  const auto value = [](Value v) {
    return absl::StrFormat("%%%d%s", v.node, v.output > 0 ? "." + std::to_string(v.output) : "");
  };
  std::string text;
  for (size_t i = 0; i < g.nodes.size(); ++i) {
    const Node& n = g.nodes[i];
    std::string args, outs;
    for (Value v : n.inputs) args += (args.empty() ? "" : ", ") + value(v);
    for (const TensorSpec& t : n.outputs) outs += (outs.empty() ? "" : ", ") + spec(t);
    const std::string attributes = n.op->attributes();
    absl::StrAppendFormat(&text, "%%%d = %s%s(%s) %s | %s%s\n", i, n.op->name(),
                          attributes.empty() ? "" : "{" + attributes + "}", args, outs, Name(n.phase),
                          n.scope.empty() ? "" : " " + n.scope);
  }
  for (const auto& [name, v] : g.outputs) absl::StrAppendFormat(&text, "output %s = %s\n", name, value(v));
  for (const auto& [s, v] : g.updates) absl::StrAppendFormat(&text, "update %s := %s\n", g.states[s].name, value(v));
  return text;
}

Graph Prune(const Graph& g) {
  std::vector<bool> needed(g.nodes.size(), false);
  for (const auto& [name, v] : g.inputs) needed[v.node] = true;
  for (const auto& [name, v] : g.outputs) needed[v.node] = true;
  for (const auto& [s, v] : g.updates) needed[v.node] = true;
  for (size_t i = g.nodes.size(); i-- > 0;) {
    if (!needed[i]) continue;
    for (Value v : g.nodes[i].inputs) needed[v.node] = true;
  }
  std::vector<NodeId> to(g.nodes.size(), -1);
  Graph result;
  result.states = g.states;
  const auto map = [&](Value v) { return v.valid() && to[v.node] >= 0 ? Value{to[v.node], v.output} : Value{}; };
  for (size_t i = 0; i < g.nodes.size(); ++i) {
    if (!needed[i]) continue;
    to[i] = static_cast<NodeId>(result.nodes.size());
    Node n = g.nodes[i];
    for (Value& v : n.inputs) v = map(v);
    for (Value& v : n.grad_of) v = map(v);
    result.nodes.push_back(std::move(n));
  }
  for (const auto& [name, v] : g.inputs) result.inputs[name] = map(v);
  for (const auto& [name, v] : g.outputs) result.outputs[name] = map(v);
  for (const auto& [name, v] : g.named) {
    if (map(v).valid()) result.named[name] = map(v);
  }
  for (const auto& [s, v] : g.updates) result.updates.emplace_back(s, map(v));
  return result;
}

}  // namespace strata
