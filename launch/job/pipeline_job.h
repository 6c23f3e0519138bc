#pragma once
// The pipeline of a job: who holds which stage, and what each pipeline rank does in a step. Ranks here are coordinates on
// the mesh axis "pp", its outermost. A job without a pipeline is one of one stage.

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/plan/plan.h"
#include "launch/config/job_config.h"
#include "parallel/pipeline/costs.h"
#include "parallel/pipeline/cut.h"
#include "parallel/pipeline/durations.h"
#include "parallel/pipeline/lower.h"
#include "parallel/pipeline/schedule.h"
#include "parallel/pipeline/stage_layout.h"
#include "parallel/zero/bucket_pass.h"

namespace strata {

struct JobPipeline {
  Schedule schedule;
  StageLayout layout;
  StageDurations durations;     // modelled
  LoweredSchedule train, eval;  // of `eval` only actions and edges
  int eval_micro_batches = 1;   // of a run of the program "eval"
};

// `costs` of a micro-batch of all data-parallel ranks; `forward`: the model.
absl::StatusOr<JobPipeline> MakePipeline(const JobConfig& config, const ModelCosts& costs, const Graph& forward);

// Stages of every replica, [replica][stage].
using JobStages = std::vector<std::vector<StageGraph>>;
std::vector<StageGraph> StagesOfRank(const JobStages& stages, const Schedule& schedule, int rank);

// Several ranks hold tied parameters and, in bidirectional pipelines, all.
StageOwners OwnersOf(const JobStages& stages, const Schedule& schedule, const Mesh& mesh);

// Edges of the pipeline as those between the ranks that have index `index` of the `inner` ranks of each stage.
std::vector<Edge> EdgesOf(std::vector<Edge> edges, int inner, int index);

// What `strata plan` prints of it: where the stages are, and the order of each rank's work; with kSteps all its actions.
// Empty without a pipeline.
std::string PipelineReport(const JobConfig& config, const JobPipeline& pipeline, PrintDetail detail);

}  // namespace strata
