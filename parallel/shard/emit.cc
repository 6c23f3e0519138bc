#include "parallel/shard/emit.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/graph/builder.h"
#include "core/ops/collective.h"
#include "parallel/shard/convert.h"
#include "parallel/shard/solve.h"

namespace strata {
namespace {

class Emitter {
 public:
  Emitter(const ShardFacts& facts, const ShardedChoice& choice, const ShardOptions& options)
      : old_(facts.graph), facts_(facts), choice_(choice), options_(options), map_(old_.nodes.size()) {}

  absl::StatusOr<Graph> Run() {
    g_.mutable_graph().states = old_.states;
    for (const auto& [id, values] : facts_.state_values) {
      g_.mutable_graph().states[id].spec.layout = OldLayout(values[0]);
    }
    RETURN_IF_ERROR(PlanAllCopies());
    for (NodeId id = 0; id < static_cast<NodeId>(old_.nodes.size()); ++id) {
      RETURN_IF_ERROR(EmitNode(id));
      RETURN_IF_ERROR(g_.status());
    }
    RETURN_IF_ERROR(EmitNames());
    SetConversionPhases();
    return std::move(g_).Build();
  }

 private:
  struct Copy {
    Layout layout;
    int source = -1;  // the copy that it is made from; -1: the value itself
    Value value;      // once made
  };

  const Layout& OldLayout(Value v) const { return choice_.layouts.out[v.node][v.output]; }
  TensorSpec& NewSpec(Value v) { return g_.mutable_graph().nodes[v.node].outputs[v.output]; }
  Value New(Value v) const { return v.valid() ? map_[v.node][v.output] : Value{}; }

  std::vector<Copy>& CopiesOf(Value v, Phase user) { return copies_[{v, CopyScope(old_, v, user, options_)}]; }

  void NoteWanted(Value v, const Layout& want, Phase user) {
    if (want == OldLayout(v)) return;
    std::vector<Copy>& list = CopiesOf(v, user);
    if (std::none_of(list.begin(), list.end(), [&](const Copy& c) { return c.layout == want; }))
      list.push_back({want, -1, {}});
  }

  absl::Status PlanAllCopies() {
    for (NodeId id = 0; id < static_cast<NodeId>(old_.nodes.size()); ++id) {
      const Node& n = old_.nodes[id];
      for (size_t k = 0; k < n.inputs.size(); ++k) NoteWanted(n.inputs[k], choice_.layouts.in[id][k], n.phase);
    }
    size_t site = old_.nodes.size();  // outputs follow the nodes
    for (const auto& [name, v] : old_.outputs) NoteWanted(v, choice_.layouts.in[site++][0], old_.nodes[v.node].phase);
    for (auto& [key, copies] : copies_) {
      const Value v = key.first;
      std::vector<Layout> wanted;
      for (const Copy& c : copies) wanted.push_back(c.layout);
      absl::StatusOr<std::vector<int>> source = PlanCopies(old_.spec(v), OldLayout(v), wanted, facts_.mesh, options_);
      if (!source.ok()) return Annotate(source.status(), old_.nodes[v.node].scope);
      for (size_t i = 0; i < wanted.size(); ++i) copies[i].source = (*source)[i];
    }
    return absl::OkStatus();
  }

  // `v` in layout `want`, for a user like `user`: made once, at its first use.
  absl::StatusOr<Value> Fetch(Value v, const Layout& want, const Node& user) {
    if (want == OldLayout(v)) return New(v);
    std::vector<Copy>& list = CopiesOf(v, user.phase);
    Copy& copy = *std::find_if(list.begin(), list.end(), [&](const Copy& c) { return c.layout == want; });
    if (copy.value.valid()) return copy.value;
    const Layout& from = copy.source < 0 ? OldLayout(v) : list[copy.source].layout;
    ASSIGN_OR_RETURN(Value value, Fetch(v, from, user));
    ASSIGN_OR_RETURN(const Route route, FindRoute(old_.spec(v), from, want, facts_.mesh, options_));
    g_.PushLike(user);
    g_.set_phase(user.phase);
    for (const ConversionStep& step : route.steps) {
      value = Convert(g_, value, step.axes, step.from, step.to, CollectiveOp::Storage::kNew, user.loc);
    }
    g_.Pop();
    RETURN_IF_ERROR(g_.status());
    copy.value = value;
    return value;
  }

  absl::Status EmitNode(NodeId id) {
    Node node = old_.nodes[id];
    std::vector<Value> inputs;
    for (size_t k = 0; k < node.inputs.size(); ++k) {
      ASSIGN_OR_RETURN(const Value v, Fetch(node.inputs[k], choice_.layouts.in[id][k], node));
      inputs.push_back(v);
    }
    if (const InputOp* input = AsInput(node); input != nullptr) {
      node.op = std::make_shared<InputOp>(input->input(),
                                          TensorSpec{node.outputs[0].dtype, node.outputs[0].shape, OldLayout({id, 0})});
    } else if (const ReadOp* read = AsRead(node); read != nullptr) {
      node.op = std::make_shared<ReadOp>(read->state(), g_.graph().states[read->state()]);
    }
    if (choice_.expansions[id].empty()) {
      map_[id] = g_.Clone(node, std::move(inputs));
    } else {
      ASSIGN_OR_RETURN(map_[id], Expand(id, node, inputs));
    }
    RETURN_IF_ERROR(g_.status());
    for (size_t k = 0; k < node.outputs.size(); ++k) {
      NewSpec(map_[id][k]).layout = OldLayout({id, static_cast<int32_t>(k)});
      g_.mutable_graph().nodes[map_[id][k].node].grad_of[map_[id][k].output] = New(node.grad_of[k]);
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<Value>> Expand(NodeId id, const Node& node, const std::vector<Value>& inputs) {
    if (choice_.expansions[id].size() > 1) {
      return absl::UnimplementedError(absl::StrFormat("%s in %s is expanded on two axes", node.op->name(), node.scope));
    }
    const auto [axis, rule] = choice_.expansions[id][0];
    const NodeId first = static_cast<NodeId>(g_.graph().nodes.size());
    g_.PushLike(node);
    g_.set_phase(node.phase);
    absl::StatusOr<std::vector<Value>> out = facts_.rules[id][rule].expand({g_, node, inputs, axis});
    g_.Pop();
    if (!out.ok())
      return Annotate(out.status(), absl::StrFormat("%s:%d: %s", node.loc.file, node.loc.line, node.scope));
    RETURN_IF_ERROR(g_.status());
    if (out->size() != node.outputs.size()) {
      return absl::InternalError(absl::StrFormat("the expansion of %s has another arity", node.op->name()));
    }
    for (NodeId made = first; made < static_cast<NodeId>(g_.graph().nodes.size()); ++made) {
      RETURN_IF_ERROR(LayOutExpanded(g_.mutable_graph().nodes[made], axis));
    }
    return out;
  }

  // Layouts of a node that an expansion made: by the row that fits its inputs. On the expanded axis a node without such
  // a row keeps what the expansion gave it.
  absl::Status LayOutExpanded(Node& node, int expanded_axis) {
    std::vector<TensorSpec> in;
    for (Value v : node.inputs) in.push_back(g_.graph().spec(v));
    if (AsCollective(node) != nullptr) {
      ASSIGN_OR_RETURN(node.outputs, node.op->Infer(in));
      return absl::OkStatus();
    }
    const std::vector<ShardRule> rules = node.op->ShardRules(in);
    for (int axis = 0; axis < facts_.mesh.num_axes(); ++axis) {
      const auto fits = [&](const ShardRule& rule) {
        for (size_t k = 0; k < in.size(); ++k) {
          if (rule.in[k] != in[k].layout[axis]) return false;
        }
        return !rule.expand;
      };
      const auto row = std::find_if(rules.begin(), rules.end(), fits);
      if (row != rules.end()) {
        for (size_t k = 0; k < node.outputs.size(); ++k) node.outputs[k].layout[axis] = row->out[k];
      } else if (axis != expanded_axis) {
        return absl::InternalError(absl::StrFormat("%s in the expansion of %s has no row for its inputs on %s",
                                                   node.op->name(), node.scope, facts_.mesh.axes()[axis].name));
      }
    }
    return absl::OkStatus();
  }

  absl::Status EmitNames() {
    Graph& out = g_.mutable_graph();
    for (const auto& [name, v] : old_.inputs) out.inputs[name] = New(v);
    for (const auto& [name, v] : old_.named) out.named[name] = New(v);
    for (const auto& [state, v] : old_.updates) {
      out.updates.emplace_back(state, New(v));
      out.states[state].spec.layout = OldLayout(v);
    }
    size_t site = old_.nodes.size();  // outputs follow the nodes
    for (const auto& [name, v] : old_.outputs) {
      ASSIGN_OR_RETURN(out.outputs[name], Fetch(v, choice_.layouts.in[site++][0], old_.nodes[v.node]));
    }
    return absl::OkStatus();
  }

  // A conversion belongs to the earliest phase that uses it, so that a gather shared by I and W is not made in W.
  void SetConversionPhases() {
    std::vector<Node>& nodes = g_.mutable_graph().nodes;
    std::vector<Phase> earliest(nodes.size(), Phase::kStep);
    for (const auto& [name, v] : g_.graph().outputs) earliest[v.node] = nodes[v.node].phase;
    for (size_t i = nodes.size(); i-- > 0;) {
      if (AsCollective(nodes[i]) != nullptr) nodes[i].phase = earliest[i];
      for (Value v : nodes[i].inputs) earliest[v.node] = std::min(earliest[v.node], nodes[i].phase);
    }
  }

  const Graph& old_;
  const ShardFacts& facts_;
  const ShardedChoice& choice_;
  const ShardOptions& options_;
  GraphBuilder g_;
  std::vector<std::vector<Value>> map_;                        // old node -> values that stand for its outputs
  std::map<std::pair<Value, int>, std::vector<Copy>> copies_;  // by old value and scope
};

}  // namespace

absl::StatusOr<Graph> EmitSharded(const ShardFacts& facts, const ShardedChoice& choice, const ShardOptions& options) {
  return Emitter(facts, choice, options).Run();
}

}  // namespace strata
