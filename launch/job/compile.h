#pragma once
// From a config to plans: the whole way of a training step before step 1.
//   model graph -> Differentiate -> AccumulateGradients -> DecomposeOps -> ShardPass -> RecomputePass -> ReduceBuffers ->
//   BucketPass -> ApplyOptimizer -> FuseOps -> BuildPlan -> VerifyPlans

#include <vector>

#include "absl/status/statusor.h"
#include "core/exec/device.h"
#include "core/plan/plan.h"
#include "launch/config/job_config.h"
#include "parallel/recompute/options.h"

namespace strata {

struct Job {  // what is the same on every rank
  JobConfig config;
  std::vector<MeshAxis> axes;
  int ranks = 1;
  RecomputeBlocks recompute;
  int64_t batch_rows = 0;  // sequences of one micro-batch over all data-parallel ranks
  std::vector<ProgramSpec> programs;
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

// The plans of all ranks, verified together. ResourceExhausted where one is larger than memory.limit.
absl::StatusOr<std::vector<Plan>> PlanRanks(const Job& job, const KernelTable& kernels);

}  // namespace strata
