#include <algorithm>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/graph/builder.h"
#include "parallel/pipeline/cut.h"

namespace strata {
namespace {

// By state of the stage: its id in `rank`, where it is declared if it is new.
absl::StatusOr<std::vector<StateId>> MergeStates(const Graph& stage, Graph& rank) {
  std::vector<StateId> ids;
  for (const State& s : stage.states) {
    const auto at =
        std::find_if(rank.states.begin(), rank.states.end(), [&](const State& r) { return r.name == s.name; });
    ids.push_back(static_cast<StateId>(at - rank.states.begin()));
    if (at == rank.states.end()) {
      rank.states.push_back(s);
    } else if (at->spec.layout != s.spec.layout || at->spec.shape != s.spec.shape) {
      return absl::InternalError(absl::StrFormat("stages of one rank place the state %s differently", s.name));
    }
  }
  return ids;
}

absl::Status Append(const StageGraph& stage, Graph& rank) {
  const Graph& g = stage.graph;
  ASSIGN_OR_RETURN(const std::vector<StateId> states, MergeStates(g, rank));
  const NodeId first = static_cast<NodeId>(rank.nodes.size());
  const auto moved = [first](Value v) { return v.valid() ? Value{v.node + first, v.output} : Value{}; };
  for (Node n : g.nodes) {
    for (Value& v : n.inputs) v = moved(v);
    for (Value& v : n.grad_of) v = moved(v);
    n.stage = static_cast<int16_t>(stage.stage);
    n.replica = static_cast<int16_t>(stage.replica);
    if (const ReadOp* read = AsRead(n); read != nullptr) {
      const StateId id = states[read->state()];
      n.op = std::make_shared<ReadOp>(id, rank.states[id]);
    }
    rank.nodes.push_back(std::move(n));
  }
  for (const auto& [name, v] : g.inputs) {
    const std::string again = absl::StrFormat("%s@%d.%d", name, stage.replica, stage.stage);
    rank.inputs[rank.inputs.contains(name) ? again : name] = moved(v);
  }
  for (const auto& [name, v] : g.named) rank.named[name] = moved(v);
  for (const auto& [name, v] : g.outputs) {
    if (!rank.outputs.emplace(name, moved(v)).second) {
      return absl::InternalError(absl::StrFormat("two stages of one rank have the output %s", name));
    }
  }
  for (const auto& [state, v] : g.updates) rank.updates.emplace_back(states[state], moved(v));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Graph> MergeStages(std::vector<StageGraph> stages) {
  Graph rank;
  for (const StageGraph& stage : stages) RETURN_IF_ERROR(Append(stage, rank));
  RETURN_IF_ERROR(Verify(rank));
  return rank;
}

}  // namespace strata
