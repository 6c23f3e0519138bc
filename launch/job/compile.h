#pragma once
// From a config to plans: the whole way of a training step before step 1.
//   model graph -> CutStages -> Differentiate -> AccumulateGradients -> DecomposeOps -> ShardPass -> RecomputePass, each
//   pipeline stage; MergeStages -> ReduceBuffers -> BucketPass -> ApplyOptimizer -> FuseOps -> EarlyReductions, each
//   pipeline rank; BuildPlan, each rank; VerifyPlans

#include <vector>

#include "absl/status/statusor.h"
#include "core/exec/device.h"
#include "core/plan/plan.h"
#include "launch/config/job_config.h"
#include "launch/job/pipeline_job.h"
#include "parallel/recompute/options.h"

namespace strata {

struct Job {  // what all ranks know
  JobConfig config;
  std::vector<MeshAxis> axes;  // "pp" outermost
  int ranks = 1;
  RecomputeBlocks recompute;
  int64_t batch_rows = 0;  // sequences of one micro-batch over all data-parallel ranks
  JobPipeline pipeline;
  std::vector<std::vector<ProgramSpec>> programs;  // by pipeline rank; without edges: PlanRank adds them

  int ranks_per_stage() const { return ranks / pipeline.schedule.ranks; }
};

// Recomputes what memory.recompute says, or the least that fits memory.limit (memory_limit.h).
// Programs "train" (all micro-batches and the update) and "eval" (one micro-batch; output "eval_loss", the sum in nats).
// Outputs of train: "loss" (sum over the global batch, nats) and "grad_norm" (before clipping).
absl::StatusOr<Job> CompileTraining(const JobConfig& config, const KernelTable& kernels);

// Program "eval" alone, on one rank: micro-batches of batch.micro sequences.
absl::StatusOr<Job> CompileEvaluation(const JobConfig& config, const KernelTable& kernels);

// Program "logits" on one rank with one sequence: output "logits" [1,S,V]. InvalidArgument where the model generates no text.
absl::StatusOr<Job> CompileGeneration(const JobConfig& config, const KernelTable& kernels);

absl::StatusOr<Mesh> MeshOf(const Job& job, int rank);

// Of one rank, not verified, its communicators not in one order with those of others.
absl::StatusOr<Plan> PlanRank(const Job& job, int rank, const KernelTable& kernels);
// Of the rank that holds most: ranks of one pipeline stage hold alike.
absl::StatusOr<Plan> PlanFullest(const Job& job, const KernelTable& kernels);

// The plans of all ranks, verified together. ResourceExhausted where one is larger than memory.limit.
absl::StatusOr<std::vector<Plan>> PlanRanks(const Job& job, const KernelTable& kernels);

}  // namespace strata
