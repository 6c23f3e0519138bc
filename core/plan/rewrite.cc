#include "core/plan/rewrite.h"

#include <algorithm>

#include "core/base/status.h"
#include "core/graph/op.h"

namespace strata {

Rewrite::Rewrite(const Graph& old) : old_(old) {
  g_.mutable_graph().states = old.states;
  for (NodeId id = 0; id < static_cast<NodeId>(old.nodes.size()); ++id) {
    for (Value v : old.nodes[id].inputs) users_[v].push_back(id);
  }
  for (const auto& [name, v] : old.outputs) users_[v].push_back(-1);
  for (const auto& [state, v] : old.updates) users_[v].push_back(-1);
}

const std::vector<NodeId>& Rewrite::Users(Value v) const {
  static const std::vector<NodeId> kNone;
  const auto it = users_.find(v);
  return it == users_.end() ? kNone : it->second;
}

const Node* Rewrite::Maker(Value v, std::string_view op) const {
  const Node& n = old_.nodes[v.node];
  return n.op->name() == op ? &n : nullptr;
}

NodeId Rewrite::OnlyUser(Value v) const {
  const std::vector<NodeId>& users = Users(v);
  return users.size() == 1 ? users[0] : -1;
}

NodeId Rewrite::OnlyUser(Value v, std::string_view op) const {
  const NodeId user = OnlyUser(v);
  return user >= 0 && old_.nodes[user].op->name() == op ? user : -1;
}

NodeId Rewrite::Reader(Value v, std::string_view op, std::span<const Value> inputs, size_t first) const {
  for (NodeId id : Users(v)) {
    if (id < 0 || old_.nodes[id].op->name() != op) continue;
    const std::vector<Value>& in = old_.nodes[id].inputs;
    if (in.size() < first + inputs.size()) continue;
    if (std::equal(inputs.begin(), inputs.end(), in.begin() + static_cast<long>(first))) return id;
  }
  return -1;
}

void Rewrite::At(NodeId id, Emit emit) { emits_[id].push_back(std::move(emit)); }

Value Rewrite::New(Value old) {
  if (!old.valid()) return {};
  if (!map_.contains(old) && (AsRead(old_.nodes[old.node]) != nullptr || old.node > at_)) Copy(old.node);
  const auto it = map_.find(old);
  if (it == map_.end()) {
    g_.Fail(absl::InternalError("a rewrite uses a value before it is made"), old_.nodes[old.node].loc);
    return {};
  }
  return it->second;
}

std::vector<Value> Rewrite::New(std::span<const Value> old) {
  std::vector<Value> fresh;
  for (Value v : old) fresh.push_back(New(v));
  return fresh;
}

void Rewrite::SetLayout(Value fresh, const Layout& layout) {
  if (fresh.valid()) g_.mutable_graph().nodes[fresh.node].outputs[fresh.output].layout = layout;
}

void Rewrite::Replace(Value old, Value fresh) {
  SetLayout(fresh, old_.spec(old).layout);
  map_[old] = fresh;
}

void Rewrite::Copy(NodeId id) {
  const Node& n = old_.nodes[id];
  std::vector<Value> in;
  for (Value v : n.inputs) in.push_back(New(v));
  const std::vector<Value> out = g_.Clone(n, std::move(in));
  for (size_t k = 0; k < n.outputs.size(); ++k) {
    const Value v{id, static_cast<int32_t>(k)};
    if (!map_.contains(v)) Replace(v, out[k]);
  }
}

absl::StatusOr<Graph> Rewrite::Run() && {
  for (NodeId id = 0; id < static_cast<NodeId>(old_.nodes.size()); ++id) {
    const Node& n = old_.nodes[id];
    at_ = id;
    if (const auto it = emits_.find(id); it != emits_.end()) {
      g_.PushLike(n);
      const size_t first = g_.graph().nodes.size();
      for (const Emit& emit : it->second) {
        g_.set_phase(n.phase);
        emit(g_);
      }
      g_.Pop();
      for (size_t i = first; i < g_.graph().nodes.size(); ++i) {
        Node& made = g_.mutable_graph().nodes[i];
        made.stage = n.stage;
        made.replica = n.replica;
      }
    }
    bool made = true;
    for (size_t k = 0; k < n.outputs.size(); ++k) made &= map_.contains({id, static_cast<int32_t>(k)});
    if (!made) Copy(id);
    RETURN_IF_ERROR(g_.status());
  }
  Graph& graph = g_.mutable_graph();
  for (const auto& [name, v] : old_.inputs) graph.inputs[name] = map_.at(v);
  for (const auto& [name, v] : old_.outputs) graph.outputs[name] = map_.at(v);
  for (const auto& [name, v] : old_.named) graph.named[name] = map_.at(v);
  for (const auto& [state, v] : old_.updates) graph.updates.emplace_back(state, map_.at(v));
  ASSIGN_OR_RETURN(const Graph built, std::move(g_).Build());
  return Prune(built);
}

}  // namespace strata
