#include "launch/job/compile.h"

#include <algorithm>
#include <optional>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/graph/autograd.h"
#include "core/graph/op.h"
#include "core/ops/elementwise.h"
#include "core/plan/fuse.h"
#include "launch/job/job_memory.h"
#include "launch/job/memory_limit.h"
#include "models/model.h"
#include "optim/optimizer_pass.h"
#include "parallel/pipeline/costs.h"
#include "parallel/pipeline/cut.h"
#include "parallel/recompute/recompute_pass.h"
#include "parallel/shard/early_reductions.h"
#include "parallel/shard/shard_pass.h"
#include "parallel/zero/bucket_pass.h"
#include "parallel/zero/flat_weights.h"
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

Job MakeJob(const JobConfig& config, int pp, int dp, int tp) {
  Job job{.config = config,
          .axes = FactorData(ModelOf(config.model.arch).axes(config.model, dp, tp), config.parallel.zero.inner),
          .ranks = pp * dp * tp};
  if (pp > 1) job.axes.insert(job.axes.begin(), {"pp", pp});
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
  return ShardPass(graph, mesh, WithBoundaryPins(ModelOf(m.arch).pins(m, TensorParallelOf(p))), options);
}

// The model up to its loss, the output "loss", and the sum of it over micro-batches, a state.
absl::StatusOr<Graph> ForwardGraph(const Job& job, const KernelTable& kernels, double dropout, const char* sum) {
  GraphBuilder g;
  const ModelLoss model = BuildLoss(g, job, kernels, dropout);
  SumLoss(g, sum, model.loss);
  g.Output("loss", model.loss);
  return std::move(g).Build();
}

// What stages are balanced by.
absl::StatusOr<ModelCosts> CostsOfModel(const Graph& forward, const Job& job, const KernelTable& kernels) {
  if (job.config.parallel.pp == 1) return ModelCosts{};
  const StageLayout whole{{{0, static_cast<int>(job.config.model.layers)}}};
  ASSIGN_OR_RETURN(const std::vector<StageGraph> one, CutStages(forward, whole));
  ASSIGN_OR_RETURN(const StageGraph train, DifferentiateStage(one[0]));
  ASSIGN_OR_RETURN(const Graph plain, Legalize(train.graph, kernels));
  return CostsOf(plain);
}

// The stages of each replica, with their backward, every tensor placed.
absl::StatusOr<JobStages> TrainStages(const Graph& forward, const Job& job, const Mesh& mesh,
                                      const KernelTable& kernels) {
  JobStages stages;
  for (int replica = 0; replica < job.pipeline.schedule.replicas; ++replica) {
    ASSIGN_OR_RETURN(stages.emplace_back(), CutStages(forward, job.pipeline.layout, replica));
    for (StageGraph& stage : stages.back()) {
      ASSIGN_OR_RETURN(stage, DifferentiateStage(stage));
      ASSIGN_OR_RETURN(stage.graph, Legalize(stage.graph, kernels));
      if (job.config.precision.gradients == GradientFormat::kBf16) stage.graph = RoundGradients(std::move(stage.graph));
      ASSIGN_OR_RETURN(stage.graph, Place(stage.graph, job, mesh));
      ASSIGN_OR_RETURN(stage.graph, RecomputePass(stage.graph, job.recompute));
    }
  }
  return stages;
}

// Of the first replica, forward only.
absl::StatusOr<JobStages> EvalStages(const Job& job, const Mesh& mesh, const KernelTable& kernels) {
  ASSIGN_OR_RETURN(const Graph forward, ForwardGraph(job, kernels, 0, "eval_loss"));
  ASSIGN_OR_RETURN(std::vector<StageGraph> stages, CutStages(forward, job.pipeline.layout));
  for (StageGraph& stage : stages) {
    stage.graph.outputs.erase("loss");
    ASSIGN_OR_RETURN(stage.graph, Legalize(stage.graph, kernels));
    ASSIGN_OR_RETURN(stage.graph, Place(stage.graph, job, mesh));
  }
  return JobStages{std::move(stages)};
}

// A rank's stages in one graph, and `sum`, which the ranks of the last stage have, as an output of every rank.
absl::StatusOr<Graph> RankGraph(const JobStages& stages, const Job& job, int rank, const Mesh& mesh, const char* sum) {
  ASSIGN_OR_RETURN(Graph graph, MergeStages(StagesOfRank(stages, job.pipeline.schedule, rank)));
  GraphBuilder g(std::move(graph));
  g.Declare({sum, Role::kBuffer, {AccumulatorOf(job.config.precision.compute), {}, {}}});
  ASSIGN_OR_RETURN(graph, std::move(g).Build());
  return ReduceBuffers(std::move(graph), mesh.Find("pp"));
}

struct TrainGraph {
  Graph graph;
  std::vector<FlatWeights> weights;  // which all programs have at the same place
};

absl::StatusOr<TrainGraph> MakeTrainGraph(const JobStages& stages, const Job& job, int rank,
                                          const KernelTable& kernels) {
  ASSIGN_OR_RETURN(const Mesh mesh, MeshOf(job, rank * job.ranks_per_stage()));
  ASSIGN_OR_RETURN(Graph graph, RankGraph(stages, job, rank, mesh, "loss"));
  ZeroOptions zero = OptionsOf(job.config.parallel.zero, mesh);
  zero.resident = job.config.parallel.resident_stages > 0;
  ASSIGN_OR_RETURN(Bucketed bucketed,
                   BucketPass(std::move(graph), mesh, zero, OwnersOf(stages, job.pipeline.schedule, mesh)));
  TrainGraph train{.weights = FlatWeightsOf(bucketed.graph, bucketed.buckets)};
  const Value loss = bucketed.graph.outputs.at("loss");
  ASSIGN_OR_RETURN(train.graph,
                   ApplyOptimizer(std::move(bucketed), mesh, job.config.optim, loss, job.config.precision.master));
  ASSIGN_OR_RETURN(train.graph, FuseOps(std::move(train.graph), mesh, kernels));
  ASSIGN_OR_RETURN(train.graph, EarlyReductions(train.graph));
  if (job.config.batch.accumulate == 1) {
    ASSIGN_OR_RETURN(train.graph, FuseSquares(std::move(train.graph), mesh, kernels));
  }
  return train;
}

// A graph without backward, on weights that lie where they do in training.
absl::StatusOr<Graph> ForwardOn(std::span<const FlatWeights> weights, Graph graph, const Job& job, const Mesh& mesh,
                                const KernelTable& kernels) {
  ASSIGN_OR_RETURN(graph, ViewWeights(std::move(graph), weights));
  ASSIGN_OR_RETURN(graph, GatherWeights(std::move(graph), weights, OptionsOf(job.config.parallel.zero, mesh)));
  return FuseOps(std::move(graph), mesh, kernels);
}

absl::StatusOr<ProgramSpec> EvalProgram(const JobStages& stages, const Job& job, int rank, const KernelTable& kernels,
                                        std::span<const FlatWeights> weights) {
  ASSIGN_OR_RETURN(const Mesh mesh, MeshOf(job, rank * job.ranks_per_stage()));
  ASSIGN_OR_RETURN(Graph graph, RankGraph(stages, job, rank, mesh, "eval_loss"));
  ASSIGN_OR_RETURN(graph, ForwardOn(weights, std::move(graph), job, mesh, kernels));
  return ProgramSpec{"eval", std::move(graph), job.pipeline.eval.actions[rank]};
}

RecomputeBlocks RecomputeOf(const JobConfig& c) {
  const int64_t blocks = c.memory.recompute_blocks > 0 ? c.memory.recompute_blocks : c.model.layers;
  const int n = static_cast<int>(blocks);
  if (c.memory.recompute == Recompute::kSelective) return {.selective = n};
  return {.whole = c.memory.recompute == Recompute::kBlock ? n : 0};
}

absl::StatusOr<Job> CompileRecomputing(const JobConfig& config, const KernelTable& kernels,
                                       const RecomputeBlocks& blocks) {
  const ParallelConfig& p = config.parallel;
  Job job = MakeJob(config, static_cast<int>(p.pp), static_cast<int>(p.dp), static_cast<int>(p.tp));
  job.recompute = blocks;
  job.batch_rows = config.batch.micro * p.dp;
  ASSIGN_OR_RETURN(const Mesh mesh, MeshOf(job, 0));
  ASSIGN_OR_RETURN(const Graph forward, ForwardGraph(job, kernels, config.model.dropout, "loss"));
  ASSIGN_OR_RETURN(const ModelCosts costs, CostsOfModel(forward, job, kernels));
  ASSIGN_OR_RETURN(job.pipeline, MakePipeline(config, costs, forward));
  ASSIGN_OR_RETURN(const JobStages train, TrainStages(forward, job, mesh, kernels));
  ASSIGN_OR_RETURN(const JobStages eval, EvalStages(job, mesh, kernels));
  for (int rank = 0; rank < job.pipeline.schedule.ranks; ++rank) {
    std::vector<ProgramSpec>& programs = job.programs.emplace_back();
    ASSIGN_OR_RETURN(TrainGraph graph, MakeTrainGraph(train, job, rank, kernels));
    programs.push_back({"train", std::move(graph.graph), job.pipeline.train.actions[rank]});
    ASSIGN_OR_RETURN(programs.emplace_back(), EvalProgram(eval, job, rank, kernels, graph.weights));
  }
  return job;
}

// With as many buckets gathered ahead, up to parallel.zero_prefetch, as fit memory.limit; with none where that does not.
absl::StatusOr<Job> CompileAhead(JobConfig config, const KernelTable& kernels, const RecomputeBlocks& blocks) {
  int64_t& prefetch = config.parallel.zero.prefetch;
  while (true) {
    ASSIGN_OR_RETURN(Job job, CompileRecomputing(config, kernels, blocks));
    if (config.memory.limit_bytes() == 0 || config.parallel.zero.stage < 3 || prefetch == 0) return job;
    ASSIGN_OR_RETURN(const Plan plan, PlanFullest(job, kernels));
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
  Job job = MakeJob(config, 1, 1, 1);
  job.config.parallel = {};
  job.config.memory = {};
  job.batch_rows = config.batch.micro;
  ASSIGN_OR_RETURN(const Mesh mesh, MeshOf(job, 0));
  ASSIGN_OR_RETURN(job.pipeline, MakePipeline(job.config, {}, {}));
  ASSIGN_OR_RETURN(const JobStages eval, EvalStages(job, mesh, kernels));
  ASSIGN_OR_RETURN(const Graph graph, RankGraph(eval, job, 0, mesh, "eval_loss"));
  ASSIGN_OR_RETURN(const std::vector<FlatWeights> weights, LayOutWeights(graph, mesh));
  ASSIGN_OR_RETURN(job.programs.emplace_back().emplace_back(), EvalProgram(eval, job, 0, kernels, weights));
  return job;
}

absl::StatusOr<Job> CompileGeneration(const JobConfig& config, const KernelTable& kernels) {
  const Model& model = ModelOf(config.model.arch);
  if (model.logits == nullptr) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "model.arch = \"%s\" is a masked language model: it fills in hidden tokens and generates no text",
        kModelArchNames[static_cast<size_t>(config.model.arch)]));
  }
  Job job = MakeJob(config, 1, 1, 1);
  job.config.parallel = {};
  job.config.memory = {};
  job.batch_rows = 1;
  ASSIGN_OR_RETURN(const Mesh mesh, MeshOf(job, 0));
  GraphBuilder g;
  model.logits(g, job.config.model, 1, config.precision.compute);
  ASSIGN_OR_RETURN(Graph graph, std::move(g).Build());
  ASSIGN_OR_RETURN(graph, Legalize(graph, kernels));
  ASSIGN_OR_RETURN(const std::vector<FlatWeights> weights, LayOutWeights(graph, mesh));
  ASSIGN_OR_RETURN(graph, ForwardOn(weights, std::move(graph), job, mesh, kernels));
  job.programs.push_back({{"logits", std::move(graph), ForwardActions()}});
  return job;
}

namespace {

// Calls that are staged through the host wait for the computing.
bool Overlaps(const Job& job, const KernelTable& kernels) {
  const ParallelConfig& p = job.config.parallel;
  if (p.comm.transport == Transport::kHost) return false;
  return p.overlap == Overlap::kOn || (p.overlap == Overlap::kAuto && kernels.asynchronous() && job.ranks > 1);
}

// Copies between GPUs of one process take no multiprocessors; sums of theirs would, beside products that count on all of them.
bool Exchanges(const Job& job, const KernelTable& kernels) {
  const ParallelConfig& p = job.config.parallel;
  if (p.reduce_scatter != ReduceScatterBy::kAuto) return p.reduce_scatter == ReduceScatterBy::kExchange;
  const bool peers = p.comm.transport == Transport::kAuto || p.comm.transport == Transport::kPeers;
  return peers && kernels.asynchronous();
}

}  // namespace

absl::StatusOr<Plan> PlanRank(const Job& job, int rank, const KernelTable& kernels) {
  ASSIGN_OR_RETURN(const Mesh mesh, MeshOf(job, rank));
  const int inner = job.ranks_per_stage();
  std::vector<ProgramSpec> programs = job.programs[rank / inner];
  for (ProgramSpec& p : programs) {
    p.edges = EdgesOf(p.name == "eval" ? job.pipeline.eval.edges : job.pipeline.train.edges, inner, rank % inner);
  }
  ASSIGN_OR_RETURN(Plan plan, BuildPlan(programs, mesh, kernels,
                                        {.overlap = Overlaps(job, kernels),
                                         .stages = mesh.Find("pp"),
                                         .row_groups = static_cast<int>(job.config.parallel.overlap_groups),
                                         .exchange = Exchanges(job, kernels)}));
  if (kernels.asynchronous()) {
    plan.outside_bytes[static_cast<int>(Tier::kDevice)] = GpuOutsideBytes(plan, job.config.parallel.comm.transport);
  }
  return plan;
}

absl::StatusOr<Plan> PlanFullest(const Job& job, const KernelTable& kernels) {
  constexpr int kDevice = static_cast<int>(Tier::kDevice);
  std::optional<Plan> fullest;
  for (int rank = 0; rank < job.ranks; rank += job.ranks_per_stage()) {
    ASSIGN_OR_RETURN(Plan plan, PlanRank(job, rank, kernels));
    if (!fullest || plan.arena_bytes[kDevice] > fullest->arena_bytes[kDevice]) fullest = std::move(plan);
  }
  return *std::move(fullest);
}

absl::StatusOr<std::vector<Plan>> PlanRanks(const Job& job, const KernelTable& kernels) {
  std::vector<Plan> plans;
  for (int rank = 0; rank < job.ranks; ++rank) {
    ASSIGN_OR_RETURN(plans.emplace_back(), PlanRank(job, rank, kernels));
  }
  RETURN_IF_ERROR(CheckLimit(job, plans, kernels));
  AlignCommunicators(plans);
  RETURN_IF_ERROR(VerifyPlans(plans));
  return plans;
}

}  // namespace strata
