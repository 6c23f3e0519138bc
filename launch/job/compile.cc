#include "launch/job/compile.h"

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/graph/autograd.h"
#include "core/graph/op.h"
#include "core/ops/elementwise.h"
#include "core/plan/fuse.h"
#include "launch/job/memory_limit.h"
#include "models/model.h"
#include "optim/optimizer_pass.h"
#include "parallel/recompute/recompute_pass.h"
#include "parallel/shard/shard_pass.h"
#include "parallel/zero/bucket_pass.h"
#include "parallel/zero/gather_weights.h"

namespace strata {
namespace {

// Fused ops without a kernel, such as the head with the loss, become plain ops before placements are chosen.
absl::StatusOr<Graph> Legalize(const Graph& graph, const KernelTable& kernels) {
  return DecomposeOps(graph, [&](const Op& op) {
    return op.name() != "input" && op.name() != "read" && !op.IsView() && !kernels.Has(op.name());
  });
}

// The running sum of the loss over the micro-batches of a step.
void SumLoss(GraphBuilder& g, const std::string& name, Value loss) {
  const StateId sum = g.Declare({name, Role::kBuffer, {g.spec(loss).dtype, {}, {}}});
  g.Update(sum, Accumulate(g, g.Read(sum), loss));
}

Job MakeJob(const JobConfig& config, int dp, int tp) {
  Job job{.config = config,
          .axes = FactorData(ModelOf(config.model.arch).axes(config.model, dp, tp), config.parallel.zero.inner),
          .ranks = dp * tp};
  job.config.model.padded_vocab = config.model.PaddedVocab(config.parallel.tp);  // of evaluation too: one set of states
  return job;
}

constexpr int64_t kLogitBytes = int64_t{2} << 30;

TensorParallel TensorParallelOf(const ParallelConfig& p) {
  return {.size = static_cast<int>(p.tp), .sequence = p.sequence_parallel && p.tp > 1};
}

int Chunks(const JobConfig& c, const KernelTable& kernels) {
  const bool fused = kernels.Has("softmax_nll_grad");
  int chunks = fused ? LossChunksWithin(c.model, c.batch.micro, kLogitBytes) : LossChunks(c.model);
  const TensorParallel tp = TensorParallelOf(c.parallel);
  while (tp.sequence && c.model.seq / chunks % tp.size != 0) chunks /= 2;  // each chunk is sharded as the sequence is
  return chunks;
}

ModelLoss BuildLoss(GraphBuilder& g, const Job& job, const KernelTable& kernels, double dropout) {
  const JobConfig& c = job.config;
  return ModelOf(c.model.arch)
      .loss(g, c.model,
            {.batch = job.batch_rows,
             .dtype = c.precision.compute,
             .chunks = Chunks(c, kernels),
             .dropout = dropout,
             .packing = c.data.packing});
}

absl::StatusOr<Graph> Place(const Graph& graph, const Job& job, const Mesh& mesh) {
  const ModelConfig& m = job.config.model;
  const ParallelConfig& p = job.config.parallel;
  ShardOptions options;
  options.keep_gathered = p.keep_gathered;
  return ShardPass(graph, mesh, ModelOf(m.arch).pins(m, TensorParallelOf(p)), options);
}

struct TrainGraph {
  Graph graph;
  std::vector<ShardedWeights> weights;  // ZeRO-3: what every program gathers
};

absl::StatusOr<TrainGraph> MakeTrainGraph(const Job& job, const Mesh& mesh, const KernelTable& kernels) {
  const ZeroOptions zero = OptionsOf(job.config.parallel.zero, mesh);
  GraphBuilder g;
  const ModelLoss model = BuildLoss(g, job, kernels, job.config.model.dropout);
  SumLoss(g, "loss", model.loss);
  ASSIGN_OR_RETURN(Graph graph, std::move(g).Build());
  ASSIGN_OR_RETURN(graph, Differentiate(graph, model.loss, model.loss_scale, model.params));
  ASSIGN_OR_RETURN(graph, AccumulateGradients(graph, model.states));
  ASSIGN_OR_RETURN(graph, Legalize(graph, kernels));
  ASSIGN_OR_RETURN(graph, Place(graph, job, mesh));
  ASSIGN_OR_RETURN(graph, RecomputePass(graph, job.recompute));
  ASSIGN_OR_RETURN(graph, ReduceBuffers(std::move(graph)));
  ASSIGN_OR_RETURN(Bucketed bucketed, BucketPass(std::move(graph), mesh, zero));
  TrainGraph train{.weights = ShardedWeightsOf(bucketed.graph, bucketed.buckets)};
  const Value loss = bucketed.graph.outputs.at("loss");
  ASSIGN_OR_RETURN(train.graph, ApplyOptimizer(std::move(bucketed), mesh, job.config.optim, loss));
  ASSIGN_OR_RETURN(train.graph, FuseOps(std::move(train.graph), mesh, kernels));
  return train;
}

absl::StatusOr<Graph> EvalGraph(const Job& job, const Mesh& mesh, const KernelTable& kernels) {
  GraphBuilder g;
  const ModelLoss model = BuildLoss(g, job, kernels, 0);
  SumLoss(g, "eval_loss", model.loss);
  ASSIGN_OR_RETURN(Graph graph, std::move(g).Build());
  ASSIGN_OR_RETURN(graph, Legalize(graph, kernels));
  ASSIGN_OR_RETURN(graph, Place(graph, job, mesh));
  return ReduceBuffers(std::move(graph));
}

absl::StatusOr<ProgramSpec> EvalProgram(const Job& job, const Mesh& mesh, const KernelTable& kernels,
                                        std::span<const ShardedWeights> weights) {
  ASSIGN_OR_RETURN(Graph eval, EvalGraph(job, mesh, kernels));
  ASSIGN_OR_RETURN(eval, GatherWeights(std::move(eval), weights, OptionsOf(job.config.parallel.zero, mesh)));
  ASSIGN_OR_RETURN(eval, FuseOps(std::move(eval), mesh, kernels));
  std::vector<Action> actions = ForwardActions();
  actions.push_back({.kind = Action::kUpdate});
  return ProgramSpec{"eval", std::move(eval), std::move(actions)};
}

RecomputeBlocks RecomputeOf(const JobConfig& c) {
  const int64_t blocks = c.memory.recompute_blocks > 0 ? c.memory.recompute_blocks : c.model.layers;
  const int n = static_cast<int>(blocks);
  if (c.memory.recompute == Recompute::kSelective) return {.selective = n};
  return {.whole = c.memory.recompute == Recompute::kBlock ? n : 0};
}

absl::StatusOr<Job> CompileRecomputing(const JobConfig& config, const KernelTable& kernels,
                                       const RecomputeBlocks& blocks) {
  Job job = MakeJob(config, static_cast<int>(config.parallel.dp), static_cast<int>(config.parallel.tp));
  job.recompute = blocks;
  job.batch_rows = config.batch.micro * config.parallel.dp;
  ASSIGN_OR_RETURN(const Mesh mesh, MeshOf(job, 0));
  ASSIGN_OR_RETURN(TrainGraph train, MakeTrainGraph(job, mesh, kernels));
  job.programs.push_back({"train", std::move(train.graph), TrainActions(static_cast<int>(config.batch.accumulate))});
  ASSIGN_OR_RETURN(job.programs.emplace_back(), EvalProgram(job, mesh, kernels, train.weights));
  return job;
}

// With as many buckets gathered ahead, up to parallel.zero_prefetch, as fit memory.limit; with none where that does not.
absl::StatusOr<Job> CompileAhead(JobConfig config, const KernelTable& kernels, const RecomputeBlocks& blocks) {
  int64_t& prefetch = config.parallel.zero.prefetch;
  while (true) {
    ASSIGN_OR_RETURN(Job job, CompileRecomputing(config, kernels, blocks));
    if (config.memory.limit_bytes() == 0 || config.parallel.zero.stage < 3 || prefetch == 0) return job;
    ASSIGN_OR_RETURN(const Mesh mesh, MeshOf(job, 0));  // every rank holds as much
    ASSIGN_OR_RETURN(const Plan plan, BuildPlan(job.programs, mesh, kernels));
    if (plan.arena_bytes[static_cast<int>(Tier::kDevice)] <= config.memory.limit_bytes()) return job;
    prefetch = std::min(prefetch, config.model.layers + 2) - 1;
  }
}

}  // namespace

absl::StatusOr<Mesh> MeshOf(const Job& job, int rank) { return Mesh::Make(job.axes, job.ranks, rank); }

absl::StatusOr<Job> CompileTraining(const JobConfig& config, const KernelTable& kernels) {
  const auto compile = [&](const RecomputeBlocks& blocks) { return CompileAhead(config, kernels, blocks); };
  if (config.memory.recompute == Recompute::kAuto) return CompileWithinLimit(config, kernels, compile);
  return compile(RecomputeOf(config));
}

absl::StatusOr<Job> CompileEvaluation(const JobConfig& config, const KernelTable& kernels) {
  Job job = MakeJob(config, 1, 1);
  job.config.parallel = {};
  job.config.memory = {};
  job.batch_rows = config.batch.micro;
  ASSIGN_OR_RETURN(const Mesh mesh, MeshOf(job, 0));
  ASSIGN_OR_RETURN(job.programs.emplace_back(), EvalProgram(job, mesh, kernels, {}));
  return job;
}

absl::StatusOr<Job> CompileGeneration(const JobConfig& config, const KernelTable& kernels) {
  const Model& model = ModelOf(config.model.arch);
  if (model.logits == nullptr) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "model.arch = \"%s\" is a masked language model: it fills in hidden tokens and generates no text",
        kModelArchNames[static_cast<size_t>(config.model.arch)]));
  }
  Job job = MakeJob(config, 1, 1);
  job.config.memory = {};
  job.batch_rows = 1;
  ASSIGN_OR_RETURN(const Mesh mesh, MeshOf(job, 0));
  GraphBuilder g;
  model.logits(g, job.config.model, 1, config.precision.compute);
  ASSIGN_OR_RETURN(Graph graph, std::move(g).Build());
  ASSIGN_OR_RETURN(graph, Legalize(graph, kernels));
  ASSIGN_OR_RETURN(graph, FuseOps(std::move(graph), mesh, kernels));
  job.programs.push_back({"logits", std::move(graph), ForwardActions()});
  return job;
}

absl::StatusOr<std::vector<Plan>> PlanRanks(const Job& job, const KernelTable& kernels) {
  std::vector<Plan> plans;
  for (int rank = 0; rank < job.ranks; ++rank) {
    ASSIGN_OR_RETURN(const Mesh mesh, MeshOf(job, rank));
    ASSIGN_OR_RETURN(plans.emplace_back(), BuildPlan(job.programs, mesh, kernels));
  }
  RETURN_IF_ERROR(CheckLimit(job, plans, kernels));
  AlignCommunicators(plans);
  RETURN_IF_ERROR(VerifyPlans(plans));
  return plans;
}

}  // namespace strata
