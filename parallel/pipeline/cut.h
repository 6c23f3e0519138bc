#pragma once
// From the forward graph of a model to the graphs of its pipeline stages, with their backward, and from these to the graph of
// a pipeline rank. A model knows nothing of it.
//
// What goes from stage to stage is one value, the residual stream at the end of a block or of a part of one (parts.h), and
// back its gradient:
//   input  "recv.act.R.S"   the activation that arrives at stage S of replica R
//   output "send.act.R.S"   the output of stage S
//   input  "recv.grad.R.S"  the gradient of stage S's output
//   output "send.grad.R.S"  the gradient of stage S's input

#include <vector>

#include "absl/status/statusor.h"
#include "core/graph/graph.h"
#include "parallel/pipeline/stage_layout.h"
#include "parallel/shard/pins.h"

namespace strata {

struct StageGraph {
  Graph graph;
  int stage = 0, replica = 0, num_stages = 1;
  bool is_first() const { return stage == 0; }
  bool is_last() const { return stage + 1 == num_stages; }
};

// Stages of one replica of the model, forward only. Every node is in one stage, with its key, scope, phase and block; graph
// inputs, what is computed from them alone, and reads of a state are in each stage that needs them, so a tied parameter is a
// state of two stages. Outputs, updates and names go with their values. Values named "*.residual" may cross.
// Errors: InvalidArgument where another value than one named residual would cross a boundary, naming its reader, and for a
// layout of blocks in other parts than the model's.
absl::StatusOr<std::vector<StageGraph>> CutStages(const Graph& forward, const StageLayout& layout, int replica = 0);

// A stage of a training graph with its backward pass and gradient accumulators. The last stage has the output "loss", which is
// dropped here, and the input "loss_scale", its cotangent. kInputGrad: what the gradient of the residual stream depends on;
// kWeightGrad: the rest of the backward pass.
absl::StatusOr<StageGraph> DifferentiateStage(const StageGraph& stage);

// Placements of what neighbours send, as the table has them for the residual stream.
std::vector<Pin> WithBoundaryPins(std::vector<Pin> pins);

// The stages of one rank side by side; nodes get Node::stage and replica. States of one name are one state: both stages of a
// tied parameter add to one accumulator. A graph input that several stages read is "positions" for the first of them and
// "positions@R.S" for others; the op has the plain name.
absl::StatusOr<Graph> MergeStages(std::vector<StageGraph> stages);

}  // namespace strata
