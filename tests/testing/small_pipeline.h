#pragma once
// A little pipeline made by hand: a chain of layers cut into stages, in float64, planned and run on thread ranks.

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/comm/communicator.h"
#include "core/exec/executor.h"
#include "core/plan/plan.h"

namespace strata::testing {

// Layer l: y = silu(x W_l^T) + c. The loss is the sum of y * t after the last one; a step takes 0.1 of the gradient. Inputs:
// x at the first layer, c at all, t at the last. Ranks are pipeline-major: rank = pipeline rank * dp + data-parallel rank.
struct SmallPipeline {
  int ranks = 1;  // of the pipeline
  int dp = 1;
  int layers = 4;  // as many in each stage
  int micro_batches = 4;
  std::vector<int> rank_of;  // by stage
  // By pipeline rank: kF, kB, kI and kW in order. Transfers are added in one global order of events.
  std::vector<std::vector<Action>> compute;
  // By pipeline rank, of pipeline ranks: where given, instead of `compute`.
  std::vector<std::vector<Action>> actions;
  std::vector<Edge> edges;
  enum class Reduce : uint8_t { kByStage, kInUpdate } reduce = Reduce::kByStage;
  // kSharded: weights are sharded over dp, and whole while the rank works on their stage (ZeRO-3 by kUnshard, kReshard).
  enum class Weights : uint8_t { kWhole, kSharded } weights = Weights::kWhole;

  int stages() const { return static_cast<int>(rank_of.size()); }
};

// Everything on one rank, without stages.
SmallPipeline OneRank(int micro_batches, int layers = 4);
// One stage a rank; `split`: I and W instead of B, W one micro-batch late.
enum class Backward : uint8_t { kWhole, kSplit };
SmallPipeline OneForwardOneBackward(int ranks, int micro_batches, Backward backward = Backward::kWhole);
SmallPipeline GPipe(int ranks, int micro_batches);
// Two stages a rank: rank r has stages r and r + ranks; or, in a V, r and 2 ranks - 1 - r. All forwards first.
enum class Shape2 : uint8_t { kLoop, kV };
SmallPipeline TwoChunks(int ranks, int micro_batches, Shape2 shape);

absl::StatusOr<std::vector<Plan>> PlanPipeline(const SmallPipeline& pipeline);  // aligned and verified

struct PipelineRun {
  std::map<std::string, std::vector<double>> parameters;
  double loss = 0;
  std::vector<std::vector<int>> peak_slots;               // [rank]: of the plan's Program::slots
  std::vector<std::vector<Executor::TimedAction>> times;  // [rank]
};
// One rank of it, in two steps; what it has of the result.
absl::StatusOr<PipelineRun> RunPipelineRank(const Plan& plan, const SmallPipeline& pipeline, World& world,
                                            Executor::Freed freed = Executor::Freed::kPoison);
std::string Bits(const PipelineRun& run);  // a hash of each parameter and of the loss: "w.0 0123456789abcdef; ..."
// All ranks, on threads; also checks that data-parallel ranks end with the same bits.
absl::StatusOr<PipelineRun> RunPipeline(const SmallPipeline& pipeline);

}  // namespace strata::testing
