#include <set>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/graph/autograd.h"
#include "core/graph/builder.h"
#include "parallel/pipeline/cut.h"

namespace strata {
namespace {

bool IsBackward(const Node& n) { return n.phase == Phase::kInputGrad || n.phase == Phase::kWeightGrad; }

// I is what the gradients of the residual stream depend on; so it never waits for W, and what both use is of I.
void SplitBackward(Graph& g) {
  std::set<Value> residuals;
  for (const auto& [name, v] : g.named) residuals.insert(v);
  std::vector<bool> needed(g.nodes.size());
  for (const auto& [name, v] : g.outputs) needed[v.node] = true;
  for (size_t i = g.nodes.size(); i-- > 0;) {
    Node& n = g.nodes[i];
    if (!IsBackward(n)) continue;
    for (Value of : n.grad_of) needed[i] = needed[i] || residuals.contains(of);
    n.phase = needed[i] || AsInput(n) != nullptr ? Phase::kInputGrad : Phase::kWeightGrad;
    if (!needed[i]) continue;
    for (Value v : n.inputs) needed[v.node] = true;
  }
}

}  // namespace

absl::StatusOr<StageGraph> DifferentiateStage(const StageGraph& stage) {
  const std::string place = absl::StrFormat("%d.%d", stage.replica, stage.stage);
  GraphBuilder g(stage.graph);
  Gradients cotangents;
  if (stage.is_last()) {
    const auto loss = stage.graph.outputs.find("loss"), scale = stage.graph.inputs.find("loss_scale");
    if (loss == stage.graph.outputs.end() || scale == stage.graph.inputs.end()) {
      return absl::InternalError("the last stage needs the output loss and the input loss_scale");
    }
    cotangents[loss->second] = scale->second;
    g.mutable_graph().outputs.erase("loss");
  } else {
    const Value sent = stage.graph.outputs.at("send.act." + place);
    g.set_phase(Phase::kInputGrad);
    g.Push("recv." + place);
    const Value gradient = g.Input("recv.grad." + place, stage.graph.spec(sent));
    g.Pop();
    RETURN_IF_ERROR(g.status());
    g.mutable_graph().nodes[gradient.node].grad_of[0] = sent;
    cotangents[sent] = gradient;
  }
  std::vector<Value> wrt;
  std::vector<StateId> params;
  for (NodeId id = 0; id < static_cast<NodeId>(stage.graph.nodes.size()); ++id) {
    const ReadOp* read = AsRead(stage.graph.nodes[id]);
    if (read == nullptr || stage.graph.states[read->state()].role != Role::kParam) continue;
    wrt.push_back({id, 0});
    params.push_back(read->state());
  }
  if (!stage.is_first()) wrt.push_back(stage.graph.inputs.at("recv.act." + place));

  StageGraph result = stage;
  ASSIGN_OR_RETURN(Graph graph, std::move(g).Build());
  ASSIGN_OR_RETURN(graph, Differentiate(graph, cotangents, wrt));
  if (!stage.is_first()) {
    auto gradient = graph.outputs.extract(absl::StrFormat("grad.%d", params.size()));
    if (gradient.empty()) return absl::InternalError("the loss does not depend on the input of stage " + place);
    gradient.key() = "send.grad." + place;
    graph.outputs.insert(std::move(gradient));
  }
  Graph sent = graph;  // gradients of parameters are no outputs for the split
  for (size_t i = 0; i < params.size(); ++i) sent.outputs.erase(absl::StrFormat("grad.%d", i));
  SplitBackward(sent);
  graph.nodes = std::move(sent.nodes);
  ASSIGN_OR_RETURN(result.graph, AccumulateGradients(graph, params));
  return result;
}

}  // namespace strata
