#include "parallel/pipeline/cut.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/graph/builder.h"
#include "core/ops/elementwise.h"
#include "parallel/pipeline/parts.h"

namespace strata {
namespace {

constexpr int kEveryStage = -1;

// By node of the whole graph: its stage, or kEveryStage.
std::vector<int> StageOfNodes(const Graph& whole, const StageLayout& layout) {
  std::vector<int> stages;
  for (const ModelPart& part : PartsOf(whole)) {
    switch (part.kind) {
      case ModelPart::kShared: stages.push_back(kEveryStage); break;
      case ModelPart::kEmbedding: stages.push_back(0); break;
      case ModelPart::kBlock: stages.push_back(layout.StageOf(part.block, part.part)); break;
      case ModelPart::kHead: stages.push_back(layout.num_stages() - 1); break;
    }
  }
  return stages;
}

class StageCutter {
 public:
  StageCutter(const Graph& whole, const std::vector<int>& stage_of, const std::vector<Value>& crossing, int stage,
              int num_stages, int replica)
      : whole_(whole),
        stage_of_(stage_of),
        crossing_(crossing),
        result_{{}, stage, replica, num_stages},
        map_(whole.nodes.size()) {}

  absl::StatusOr<StageGraph> Run() {
    const std::vector<bool> kept = KeptNodes();
    DeclareStates(kept);
    if (!result_.is_first()) Receive(crossing_[result_.stage - 1]);
    for (NodeId id = 0; id < static_cast<NodeId>(whole_.nodes.size()); ++id) {
      if (kept[id]) Copy(id);
    }
    for (const auto& [name, v] : whole_.inputs) {
      if (kept[v.node]) g_.mutable_graph().inputs[name] = New(v);
    }
    for (const auto& [name, v] : whole_.named) {
      if (stage_of_[v.node] == result_.stage) g_.mutable_graph().named[name] = New(v);
    }
    for (const auto& [name, v] : whole_.outputs) {
      if (stage_of_[v.node] == result_.stage) g_.Output(name, New(v));
    }
    for (const auto& [state, v] : whole_.updates) {
      if (stage_of_[v.node] == result_.stage) g_.Update(states_.at(state), New(v));
    }
    if (!result_.is_last()) g_.Output(Name("send.act"), New(crossing_[result_.stage]));
    ASSIGN_OR_RETURN(result_.graph, std::move(g_).Build());
    return std::move(result_);
  }

 private:
  std::string Name(const char* what) const { return absl::StrFormat("%s.%d.%d", what, result_.replica, result_.stage); }
  Value New(Value v) const { return map_[v.node].empty() ? Value{} : map_[v.node][v.output]; }

  // The nodes of this stage, and the shared ones that they need.
  std::vector<bool> KeptNodes() const {
    std::vector<bool> kept(whole_.nodes.size());
    for (size_t i = kept.size(); i-- > 0;) {
      kept[i] = kept[i] || stage_of_[i] == result_.stage;
      if (!kept[i]) continue;
      for (Value v : whole_.nodes[i].inputs) {
        if (stage_of_[v.node] == kEveryStage) kept[v.node] = true;
      }
    }
    return kept;
  }

  void DeclareStates(const std::vector<bool>& kept) {  // in the order of the whole graph
    std::vector<bool> used(whole_.states.size());
    for (size_t i = 0; i < kept.size(); ++i) {
      const ReadOp* read = AsRead(whole_.nodes[i]);
      if (kept[i] && read != nullptr) used[read->state()] = true;
    }
    for (const auto& [state, v] : whole_.updates) used[state] = used[state] || stage_of_[v.node] == result_.stage;
    for (size_t s = 0; s < used.size(); ++s) {
      if (used[s]) states_[static_cast<StateId>(s)] = g_.Declare(whole_.states[s]);
    }
  }

  // The boundary is an identity on this side too, so that its gradient is summed before it is converted.
  void Receive(Value boundary) {
    g_.Push(Name("recv"));
    const Value x = Identity(g_, g_.Input(Name("recv.act"), whole_.spec(boundary)));
    g_.Name("residual", x);
    g_.Pop();
    map_[boundary.node].resize(whole_.nodes[boundary.node].outputs.size());
    map_[boundary.node][boundary.output] = x;
  }

  void Copy(NodeId id) {
    Node node = whole_.nodes[id];
    std::vector<Value> inputs;
    for (Value v : node.inputs) inputs.push_back(New(v));
    if (const ReadOp* read = AsRead(node); read != nullptr) {
      const StateId state = states_.at(read->state());
      node.op = std::make_shared<ReadOp>(state, g_.graph().states[state]);
    }
    map_[id] = g_.Clone(node, std::move(inputs));
  }

  const Graph& whole_;
  const std::vector<int>& stage_of_;
  const std::vector<Value>& crossing_;
  StageGraph result_;
  GraphBuilder g_;
  std::vector<std::vector<Value>> map_;  // node of the whole graph -> values here
  std::map<StateId, StateId> states_;
};

std::string Where(const Node& n) {
  return absl::StrFormat("%s:%d: %s in %s", n.loc.file, n.loc.line, n.op->name(), n.scope);
}

bool IsNamedResidual(const Graph& g, Value v) {
  return std::any_of(g.named.begin(), g.named.end(),
                     [&](const auto& named) { return named.second == v && IsResidual(named.first); });
}

// [s]: the value that goes from stage s to stage s + 1.
absl::StatusOr<std::vector<Value>> CrossingValues(const Graph& g, const std::vector<int>& stage_of, int num_stages) {
  std::vector<Value> crossing(num_stages - 1);
  for (size_t i = 0; i < g.nodes.size(); ++i) {
    if (stage_of[i] == kEveryStage) continue;
    for (Value v : g.nodes[i].inputs) {
      const int from = stage_of[v.node], to = stage_of[i];
      if (from == kEveryStage || from == to) continue;
      if (from + 1 != to || !IsNamedResidual(g, v) || (crossing[from].valid() && crossing[from] != v)) {
        return absl::InvalidArgumentError(
            absl::StrFormat("%s is in stage %d and reads a value of stage %d, made at %s: only the residual stream at "
                            "the end of a block, or of a part of one, goes from one stage to the next",
                            Where(g.nodes[i]), to, from, Where(g.nodes[v.node])));
      }
      crossing[from] = v;
    }
  }
  for (int s = 0; s + 1 < num_stages; ++s) {
    if (!crossing[s].valid()) {
      return absl::InvalidArgumentError(absl::StrFormat("nothing goes from stage %d to stage %d", s, s + 1));
    }
  }
  return crossing;
}

}  // namespace

absl::StatusOr<std::vector<StageGraph>> CutStages(const Graph& forward, const StageLayout& layout, int replica) {
  if (const int parts = PartsPerBlock(forward); layout.parts_per_block > 1 && layout.parts_per_block != parts) {
    return absl::InvalidArgumentError(
        absl::StrFormat("stages of blocks in %d parts of a model whose blocks have %d", layout.parts_per_block, parts));
  }
  const std::vector<int> stage_of = StageOfNodes(forward, layout);
  ASSIGN_OR_RETURN(const std::vector<Value> crossing, CrossingValues(forward, stage_of, layout.num_stages()));
  std::vector<StageGraph> stages;
  for (int s = 0; s < layout.num_stages(); ++s) {
    StageCutter cutter(forward, stage_of, crossing, s, layout.num_stages(), replica);
    ASSIGN_OR_RETURN(stages.emplace_back(), cutter.Run());
  }
  return stages;
}

std::vector<Pin> WithBoundaryPins(std::vector<Pin> pins) {
  std::vector<Pin> received;
  for (const Pin& pin : pins) {
    if (pin.pattern == "*.residual") received.push_back({"recv.*", pin.axis, pin.placement});
  }
  pins.insert(pins.begin(), received.begin(), received.end());
  return pins;
}

}  // namespace strata
