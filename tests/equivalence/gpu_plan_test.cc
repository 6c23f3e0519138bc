// Plans for GPUs, made without one: what is launched in a block of a model, and where it is written.

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <set>

#include "absl/strings/str_format.h"
#include "core/graph/op.h"
#include "core/ops/collective.h"
#include "core/ops/flat.h"
#include "core/ops/squares.h"
#include "launch/job/compile.h"
#include "tests/testing/small_job.h"

namespace strata::testing {
namespace {

// bf16, with sizes that adjacent weights need.
JobConfig Sized(ModelArch arch, int64_t dp, int64_t stage) {
  JobConfig c = SmallJobOf(arch, dp, 1, 1);
  c.precision.compute = DType::kBF16;
  c.model.layers = 3;
  c.model.dim = 128;
  c.model.heads = 2;
  c.model.kv_heads = arch == ModelArch::kLlama ? 1 : 2;
  c.model.ffn = 192;
  c.parallel.zero.stage = stage;
  return c;
}

// Of a pipeline rank's first rank, with the job it is of.
struct Planned {
  Job job;
  Plan plan;
  int pipeline_rank = 0;
  const Graph& graph(size_t program) const { return job.programs[pipeline_rank][program].graph; }
};
constexpr size_t kTrain = 0, kEval = 1;

absl::StatusOr<Planned> PlanOf(JobConfig config, ReduceScatterBy scatter = ReduceScatterBy::kTransport,
                               int pipeline_rank = 0) {
  config.parallel.overlap_groups = 1;  // products are counted whole
  config.parallel.reduce_scatter = scatter;
  const KernelTable kernels = CudaKernels(Determinism::kFast);
  absl::StatusOr<Job> job = CompileTraining(config, kernels);
  if (!job.ok()) return job.status();
  absl::StatusOr<std::vector<Plan>> plans = PlanRanks(*job, kernels);
  if (!plans.ok()) return plans.status();
  const int rank = pipeline_rank * job->ranks_per_stage();
  return Planned{*std::move(job), (*std::move(plans))[rank], pipeline_rank};
}

#define STRATA_NEEDS_CUDA_KERNELS() \
  if (!CudaKernels(Determinism::kFast).Has("linear")) GTEST_SKIP() << "built without CUDA"

// Launches and collectives of a program's block, by op; collectives as "collective".
using Counts = std::map<std::string, int>;
Counts StepsOf(const Planned& p, size_t program, int block) {
  Counts counts;
  for (const Segment& segment : p.plan.programs[program].segments) {
    for (const Step& step : segment.steps) {
      if (step.node < 0 || p.graph(program).nodes[step.node].block != block) continue;
      ++counts[step.kind == Step::kLaunch ? std::string(step.op->name())
                                          : (step.kind == Step::kCollective ? "collective" : "copy")];
    }
  }
  return counts;
}

int Launches(const Counts& counts) {
  int n = 0;
  for (const auto& [op, count] : counts) n += op == "collective" ? 0 : count;
  return n;
}

// The parts of packs that are copied to their places.
int CopiedParts(const Planned& p) {
  int copies = 0;
  for (const Segment& segment : p.plan.programs[kTrain].segments) {
    for (const Step& step : segment.steps) {
      const PackOp* pack = dynamic_cast<const PackOp*>(step.op.get());
      for (size_t i = 0; pack != nullptr && i < step.in.size(); ++i) {
        Ref place = step.out[0].ref;
        place.offset += pack->offsets()[i] * SizeOf(step.out[0].view.dtype);
        copies += step.in[i].ref == place ? 0 : 1;
      }
    }
  }
  return copies;
}

int64_t TransientBytes(const Planned& p) {
  int64_t bytes = 0;
  for (const Region& r : p.plan.regions) {
    if (r.kind == Region::kTransient || r.kind == Region::kSlot) bytes += r.bytes * r.slots;
  }
  return bytes;
}

// Beside the same kernels the pack, its accumulation where norms' are added in place, and that of GELU's bias.
TEST(GpuPlan, ShardedGradientsLaunchFewMoreKernelsThanWholeOnes) {
  STRATA_NEEDS_CUDA_KERNELS();
  for (const ModelArch arch : {ModelArch::kLlama, ModelArch::kGpt2, ModelArch::kBert}) {
    SCOPED_TRACE(kModelArchNames[static_cast<size_t>(arch)]);
    const auto whole = PlanOf(Sized(arch, 2, 1));
    ASSERT_TRUE(whole.ok()) << whole.status();
    Counts want = StepsOf(*whole, kTrain, 1);
    EXPECT_EQ(want["attention_packed"], 1);
    EXPECT_EQ(want["linear_dw_acc"], 4);
    EXPECT_EQ(want["collective"], 0);
    for (const int64_t stage : {2, 3}) {
      SCOPED_TRACE(stage);
      const auto sharded = PlanOf(Sized(arch, 2, stage));
      ASSERT_TRUE(sharded.ok()) << sharded.status();
      Counts got = StepsOf(*sharded, kTrain, 1);
      EXPECT_EQ(got["attention_packed"], 1);
      EXPECT_EQ(got[arch == ModelArch::kLlama ? "attention_rope_bwd" : "attention_packed_bwd"], 1);
      EXPECT_EQ(got["attention"], 0);
      EXPECT_EQ(got["cast"], 0);
      EXPECT_EQ(got["copy"], 0);
      EXPECT_EQ(got["linear_dw"], 4);  // q | k | v, o, up (with gate), down
      EXPECT_EQ(got["accumulate"], 1);
      EXPECT_EQ(got["pack"], 1);
      EXPECT_EQ(got["collective"], stage == 2 ? 1 : 3);
      EXPECT_LE(Launches(got), Launches(want) + (arch == ModelArch::kLlama ? 2 : 3));
      EXPECT_EQ(CopiedParts(*sharded), 0);
    }
  }
}

// Products write bf16 gradients where they are kept; what other kernels make is rounded by the copy there that was.
TEST(GpuPlan, GradientsInBf16TakeNoMoreSteps) {
  STRATA_NEEDS_CUDA_KERNELS();
  for (const ModelArch arch : {ModelArch::kLlama, ModelArch::kQwen2, ModelArch::kGpt2, ModelArch::kBert}) {
    for (int64_t stage = 0; stage <= 3; ++stage) {
      SCOPED_TRACE(std::string(kModelArchNames[static_cast<size_t>(arch)]) + " zero " + std::to_string(stage));
      JobConfig c = Sized(arch, stage > 0 ? 2 : 1, stage);
      const auto exact = PlanOf(c);
      c.precision.gradients = GradientFormat::kBf16;
      const auto rounded = PlanOf(c);
      ASSERT_TRUE(exact.ok() && rounded.ok()) << exact.status() << rounded.status();
      Counts want = StepsOf(*exact, kTrain, 1), got = StepsOf(*rounded, kTrain, 1);
      EXPECT_EQ(got, want);
      EXPECT_EQ(got["linear_dw"] + got["linear_dw_acc"] + got["linear_dw_acc_squares"], 4);
      // A tied embedding keeps float32 in a bucket of its own.
      const bool tied = arch == ModelArch::kGpt2 || arch == ModelArch::kBert;
      int products = 0;
      size_t steps[2] = {};
      for (const Segment& segment : exact->plan.programs[kTrain].segments) steps[0] += segment.steps.size();
      for (const Segment& segment : rounded->plan.programs[kTrain].segments) {
        steps[1] += segment.steps.size();
        for (const Step& step : segment.steps) {
          if (step.node < 0 || step.kind != Step::kLaunch) continue;
          const bool tables = !tied && step.op->name().starts_with("embedding_dw");
          const bool in_block = rounded->graph(kTrain).nodes[step.node].block == 1;
          if (!tables && !(in_block && step.op->name().starts_with("linear_dw"))) continue;
          for (const Operand& o : step.out) {
            if (o.view.shape == Shape{kSquareParts}) continue;
            EXPECT_EQ(o.view.dtype, DType::kBF16);
          }
          products += in_block;
        }
      }
      EXPECT_EQ(products, 4);
      EXPECT_LE(steps[1], steps[0] + (tied ? 8 : 0));
      EXPECT_LE(TransientBytes(*rounded), TransientBytes(*exact));
    }
  }
}

// By op, of all that is launched.
Counts LaunchesOf(const Planned& p) {
  Counts counts;
  for (const Segment& segment : p.plan.programs[kTrain].segments) {
    for (const Step& step : segment.steps) {
      if (step.kind == Step::kLaunch) ++counts[std::string(step.op->name())];
    }
  }
  return counts;
}

// One launch for all that no product sums, where there were two for each bucket and one more for their sum.
TEST(GpuPlan, ProductsSumTheSquaresOfGradients) {
  STRATA_NEEDS_CUDA_KERNELS();
  for (const ModelArch arch : {ModelArch::kLlama, ModelArch::kQwen3, ModelArch::kGpt2, ModelArch::kBert}) {
    for (const GradientFormat gradients : {GradientFormat::kFloat32, GradientFormat::kBf16}) {
      SCOPED_TRACE(kModelArchNames[static_cast<size_t>(arch)]);
      JobConfig c = Sized(arch, 1, 0);
      c.precision.gradients = gradients;
      const auto fused = PlanOf(c);
      ASSERT_TRUE(fused.ok()) << fused.status();
      Counts got = LaunchesOf(*fused);
      const int products = arch == ModelArch::kQwen3 ? 6 : 4;  // q, k and v by themselves
      EXPECT_EQ(StepsOf(*fused, kTrain, 1)["linear_dw_acc_squares"], products);
      EXPECT_EQ(StepsOf(*fused, kTrain, 1)["copy"], 0);
      EXPECT_EQ(got["total_squares"], 1);
      EXPECT_EQ(got["sum_squares"], 0);
      EXPECT_EQ(got["embedding_dw_acc_squares"], 1);  // of positions, where that of tokens is added to a tied head's
      // Of such a head alone.
      EXPECT_EQ(got["linear_dw_acc"], arch == ModelArch::kGpt2 || arch == ModelArch::kBert ? 1 : 0);
    }
  }
  JobConfig c = Sized(ModelArch::kLlama, 1, 0);
  c.batch = {.micro = c.batch.micro / 2, .accumulate = 2};
  c.batch.tokens = 2 * c.batch.micro * c.model.seq;
  const auto several = PlanOf(c);
  ASSERT_TRUE(several.ok()) << several.status();
  EXPECT_EQ(LaunchesOf(*several)["linear_dw_acc_squares"], 0);
}

TEST(GpuPlan, HeadsWithNormsTakeThePackedAttentionInBf16) {
  STRATA_NEEDS_CUDA_KERNELS();
  for (const int64_t stage : {0, 3}) {
    JobConfig c = Sized(ModelArch::kQwen3, stage > 0 ? 2 : 1, stage);
    const auto planned = PlanOf(c);
    ASSERT_TRUE(planned.ok()) << planned.status();
    Counts got = StepsOf(*planned, kTrain, 1);
    EXPECT_EQ(got["attention_packed"], 1);
    EXPECT_EQ(got["attention_rope_bwd"], 1);
    EXPECT_EQ(got["rope"], 2);  // of q and k, forward
    EXPECT_EQ(got["heads_packed"] + got["heads_unpacked"], 2);
    EXPECT_EQ(StepsOf(*planned, kEval, 1)["attention_packed"], 1);
    c.precision.compute = DType::kF32;  // which no attention of cuDNN takes
    const auto plain = PlanOf(c);
    ASSERT_TRUE(plain.ok()) << plain.status();
    EXPECT_EQ(StepsOf(*plain, kTrain, 1)["attention"], 1);
  }
}

// Of what the compute stream runs, the weight gradient of a product comes after all that the reduction of dx waits for.
TEST(GpuPlan, ReductionsOfInputGradientsStartBeforeWeightGradients) {
  STRATA_NEEDS_CUDA_KERNELS();
  for (const ModelArch arch : {ModelArch::kLlama, ModelArch::kGpt2, ModelArch::kBert}) {
    for (const bool sequence : {false, true}) {
      SCOPED_TRACE(kModelArchNames[static_cast<size_t>(arch)]);
      JobConfig c = Sized(arch, 1, 0);
      c.model.kv_heads = 2;
      c.parallel.tp = 2;
      c.parallel.sequence_parallel = sequence;
      const auto planned = PlanOf(c);
      ASSERT_TRUE(planned.ok()) << planned.status();
      const auto mesh = MeshOf(planned->job, 0);
      ASSERT_TRUE(mesh.ok());
      const int tp = std::countr_zero(mesh->Find("tp"));
      int reductions = 0;
      for (const Segment& segment : planned->plan.programs[kTrain].segments) {
        if (segment.kind != Action::kB) continue;
        bool product = false;  // a dx that is a partial sum and not yet reduced
        for (const Step& step : segment.steps) {
          if (step.node < 0) continue;
          const Node& n = planned->graph(kTrain).nodes[step.node];
          const CollectiveOp* call = AsCollective(n);
          if (n.block < 0) continue;
          const std::string_view op = step.kind == Step::kLaunch ? step.op->name() : "";
          if (op.starts_with("linear_dx") || op == "linear_packed_dx") {
            product = n.outputs[0].layout[tp] == Partial();
          } else if (step.kind == Step::kCollective && product && call->from() == Partial()) {
            product = false;
            ++reductions;
          } else if (op.starts_with("linear_dw")) {
            EXPECT_FALSE(product) << n.scope;
          }
        }
      }
      EXPECT_EQ(reductions, 2 * c.model.layers);
    }
  }
}

struct Variant {
  const char* name;
  ZeroConfig zero;
  int64_t dp = 2, tp = 1, pp = 1;
  void (*change)(JobConfig&) = [](JobConfig&) {};
};
const Variant kVariants[] = {
    {"MiCS", {.stage = 3, .inner = 2, .scope = ZeroScope::kInner}, 4},
    {"three levels", {.stage = 3, .inner = 2, .scope = ZeroScope::kStates}, 4},
    {"secondary shards", {.stage = 3, .inner = 2, .secondary = true}, 4},
    {"quantised", {.stage = 3, .weights = Wire::kInt8, .gradients = Wire::kInt8}},
    {"recomputed", {.stage = 3}, 2, 1, 1, [](JobConfig& c) { c.memory.recompute = Recompute::kBlock; }},
    {"partly recomputed", {.stage = 2}, 2, 1, 1, [](JobConfig& c) { c.memory.recompute = Recompute::kSelective; }},
    {"tied", {.stage = 2}, 2, 1, 1, [](JobConfig& c) { c.model.tied = true; }},
    {"tensor parallel", {.stage = 3}, 2, 2, 1, [](JobConfig& c) { c.parallel.sequence_parallel = true; }},
    {"documents", {.stage = 2}, 2, 1, 1, [](JobConfig& c) { c.data.packing = Packing::kIsolate; }},
    {"resident", {.stage = 3}, 2, 1, 2, [](JobConfig& c) { c.parallel.resident_stages = 1; }},
    {"work later", {.stage = 2}, 2, 1, 2, [](JobConfig& c) { c.parallel.schedule = "zb-h1"; }},
};

TEST(GpuPlan, ProductsPackHoweverStatesAreSharded) {
  STRATA_NEEDS_CUDA_KERNELS();
  for (const ModelArch arch : {ModelArch::kLlama, ModelArch::kQwen2}) {
    for (const Variant& v : kVariants) {
      SCOPED_TRACE(v.name);
      JobConfig c = Sized(arch, v.dp, v.zero.stage);
      c.model.layers = 2;
      c.model.kv_heads = 2;
      c.parallel.zero = v.zero;
      c.parallel.tp = v.tp;
      c.parallel.pp = v.pp;
      c.batch = {.tokens = 64 * v.dp, .micro = 4, .accumulate = 2};
      v.change(c);
      const auto planned = PlanOf(c);
      ASSERT_TRUE(planned.ok()) << planned.status();
      const bool again = c.memory.recompute == Recompute::kBlock;
      Counts got = StepsOf(*planned, kTrain, 0);
      EXPECT_EQ(got["attention_packed"], again ? 2 : 1);
      EXPECT_EQ(got["attention_rope_bwd"], 1);
      EXPECT_EQ(got["rope_packed"], arch == ModelArch::kLlama ? 0 : again ? 2 : 1);
      EXPECT_EQ(got["attention"] + got["attention_bwd"] + got["rope"], 0);
      EXPECT_EQ(got[arch == ModelArch::kLlama ? "linear_rope" : "linear_packed_bias"], again ? 2 : 1);
      EXPECT_EQ(got["linear_swiglu"], again ? 2 : 1);
      EXPECT_EQ(got["linear_dx_swiglu"], 1);
      EXPECT_EQ(got["linear_packed_dx"], 2);
      EXPECT_EQ(got["linear_dw"], 4);
      EXPECT_EQ(got["slice"], 0);
      EXPECT_EQ(CopiedParts(*planned), 0);
      EXPECT_EQ(StepsOf(*planned, kEval, 0)["attention_packed"], 1);
    }
  }
}

// A block that two stages share launches what it does in one, for its halves begin and end as blocks do; but each has a bucket
// of its own.
TEST(GpuPlan, HalvesOfABlockLaunchItsKernels) {
  STRATA_NEEDS_CUDA_KERNELS();
  for (const ModelArch arch : {ModelArch::kLlama, ModelArch::kGpt2, ModelArch::kBert}) {
    for (const int64_t stage : {0, 2, 3}) {
      SCOPED_TRACE(absl::StrFormat("%s, ZeRO %d", kModelArchNames[static_cast<size_t>(arch)], stage));
      JobConfig c = Sized(arch, stage > 0 ? 2 : 1, stage);
      c.model.layers = 3;
      c.parallel.pp = 2;
      c.batch = {.tokens = 64 * c.parallel.dp, .micro = 4, .accumulate = 2};
      const auto steps = [&](const char* schedule, const char* layout) {
        c.parallel.schedule = schedule;
        c.parallel.stage_layout = layout;
        Counts counts;
        for (const int rank : {0, 1}) {
          const auto planned = PlanOf(c, ReduceScatterBy::kTransport, rank);
          EXPECT_TRUE(planned.ok()) << planned.status();
          for (const auto& [op, n] : StepsOf(*planned, kTrain, 1)) counts[op] += n;
        }
        return counts;
      };
      Counts want = steps("zb-h1", "E,0-1 | 2,H");
      EXPECT_EQ(want["attention_packed"], 1);
      for (const char* of_bucket : {"pack", "accumulate", "collective"}) {
        if (stage > 0) want[of_bucket] *= 2;
      }
      EXPECT_EQ(steps("zb-h1", "E,0-1a | 1b-2,H"), want);
      EXPECT_EQ(steps("zbv", "E,0 | 1a | 1b | 2,H"), want);  // one rank has both
    }
  }
}

TEST(GpuPlan, ForwardAlonePacksWhatTrainingDoes) {
  STRATA_NEEDS_CUDA_KERNELS();
  const KernelTable kernels = CudaKernels(Determinism::kFast);
  const auto expect = [](const Graph& graph, const JobConfig& c) {
    Counts ops;
    for (const Node& n : graph.nodes) ++ops[std::string(n.op->name())];
    EXPECT_EQ(ops["attention_packed"], c.model.layers);
    EXPECT_EQ(ops["attention"], 0);
    EXPECT_EQ(ops["linear_swiglu"], c.model.arch == ModelArch::kLlama ? c.model.layers : 0);
  };
  for (const ModelArch arch : {ModelArch::kLlama, ModelArch::kGpt2, ModelArch::kBert}) {
    SCOPED_TRACE(kModelArchNames[static_cast<size_t>(arch)]);
    for (const int64_t stage : {0, 1, 2, 3}) {
      const JobConfig c = Sized(arch, stage > 0 ? 2 : 1, stage);
      const auto trained = PlanOf(c);
      ASSERT_TRUE(trained.ok()) << trained.status();
      expect(trained->graph(kEval), c);
    }
    const JobConfig c = Sized(arch, 2, 3);
    const auto evaluation = CompileEvaluation(c, kernels);
    ASSERT_TRUE(evaluation.ok()) << evaluation.status();
    expect(evaluation->programs[0][0].graph, c);
    if (arch == ModelArch::kBert) continue;
    const auto generation = CompileGeneration(c, kernels);
    ASSERT_TRUE(generation.ok()) << generation.status();
    expect(generation->programs[0][0].graph, c);
  }
}

// dx is what the ranks before, and collectives, wait for: the product that makes dW comes after it and may run beside them.
void ExpectInputGradientsFirst(const Graph& g) {
  std::map<Value, NodeId> dx;  // by the gradient of the product
  int weight_gradients = 0;
  for (NodeId id = 0; id < static_cast<NodeId>(g.nodes.size()); ++id) {
    const Node& n = g.nodes[id];
    const std::string_view op = n.op->name();
    if (op.starts_with("linear_dx") || op == "linear_packed_dx") dx[n.inputs[op == "linear_dx_gelu_acc" ? 1 : 0]] = id;
    if (op != "linear_dw" && op != "linear_dw_acc") continue;
    ++weight_gradients;
    const Value x = n.inputs.back(), dy = n.inputs[n.inputs.size() - 2];
    ASSERT_TRUE(dx.contains(dy)) << n.scope;
    if (AsCollective(g.nodes[x.node]) != nullptr) {  // x gathered again
      EXPECT_LT(x.node, dx[dy]) << n.scope;
    }
  }
  EXPECT_GT(weight_gradients, 0);
}

TEST(GpuPlan, InputGradientsComeBeforeWeightGradients) {
  STRATA_NEEDS_CUDA_KERNELS();
  for (const ModelArch arch : {ModelArch::kLlama, ModelArch::kGpt2, ModelArch::kBert}) {
    SCOPED_TRACE(kModelArchNames[static_cast<size_t>(arch)]);
    for (const int64_t tp : {1, 2}) {
      for (const int64_t stage : {0, 2}) {
        JobConfig c = Sized(arch, 2, stage);
        c.model.kv_heads = 2;
        c.parallel.tp = tp;
        c.parallel.sequence_parallel = true;
        for (const KernelTable& kernels : {CpuKernels(), CudaKernels(Determinism::kFast)}) {
          const auto job = CompileTraining(c, kernels);
          ASSERT_TRUE(job.ok()) << job.status();
          ExpectInputGradientsFirst(job->programs[0][kTrain].graph);
        }
      }
    }
  }
}

// The gradients of a bucket are made in the buffer that is reduced: they are there once, and those of one block at a time.
TEST(GpuPlan, PartsTakeTheMemoryOfTheirBucketAlone) {
  STRATA_NEEDS_CUDA_KERNELS();
  JobConfig one_stream = Sized(ModelArch::kLlama, 2, 2), wholes = Sized(ModelArch::kLlama, 2, 1);
  one_stream.parallel.overlap = wholes.parallel.overlap = Overlap::kOff;
  const auto whole = PlanOf(wholes), sharded = PlanOf(one_stream), overlapped = PlanOf(Sized(ModelArch::kLlama, 2, 2));
  ASSERT_TRUE(whole.ok() && sharded.ok() && overlapped.ok());
  const PlannedState* bucket = whole->plan.FindState("bucket.blocks.1.grads");
  ASSERT_NE(bucket, nullptr);
  const int64_t bytes = bucket->box.shape.elements() * SizeOf(bucket->spec.dtype);
  EXPECT_LE(TransientBytes(*sharded), TransientBytes(*whole) + bytes);
  EXPECT_LE(TransientBytes(*overlapped), TransientBytes(*whole) + 2 * bytes);  // one is reduced beside the next
}

// What backward does not read is not gathered for it: tables, and the head, whose gradients forward makes.
TEST(GpuPlan, BackwardGathersWhatItReads) {
  STRATA_NEEDS_CUDA_KERNELS();
  for (const ModelArch arch : {ModelArch::kLlama, ModelArch::kGpt2, ModelArch::kBert}) {
    SCOPED_TRACE(kModelArchNames[static_cast<size_t>(arch)]);
    JobConfig c = Sized(arch, 2, 3);
    c.model.vocab = 4096;
    const auto planned = PlanOf(c);
    ASSERT_TRUE(planned.ok()) << planned.status();
    int forward = 0, backward = 0;  // gathers of the table, or more
    for (const Node& n : planned->graph(kTrain).nodes) {
      const CollectiveOp* call = AsCollective(n);
      if (call == nullptr || call->kind() != CollectiveOp::Kind::kAllGather) continue;
      if (n.outputs[0].shape[0] < c.model.vocab * c.model.dim) continue;
      forward += n.phase == Phase::kForward;
      backward += n.phase == Phase::kInputGrad || n.phase == Phase::kWeightGrad;
    }
    EXPECT_GT(forward, 0);
    EXPECT_EQ(backward, 0);
  }
}

// The launches of the segments of one kind: op, attributes and scope.
std::set<std::string> LaunchesOf(const Planned& p, Action::Kind kind) {
  std::set<std::string> launches;
  for (const Segment& segment : p.plan.programs[kTrain].segments) {
    for (const Step& step : segment.steps) {
      if (segment.kind != kind || step.kind != Step::kLaunch) continue;
      launches.insert(absl::StrFormat("%s %s in %s", std::string(step.op->name()), step.op->attributes(), step.scope));
    }
  }
  return launches;
}

// Else its bits would differ from what forward made: another kernel, or other roundings between kernels.
TEST(GpuPlan, WhatABlockComputesAgainIsLaunchedAsInForward) {
  STRATA_NEEDS_CUDA_KERNELS();
  for (const ModelArch arch : {ModelArch::kLlama, ModelArch::kQwen3, ModelArch::kGpt2, ModelArch::kBert}) {
    SCOPED_TRACE(kModelArchNames[static_cast<size_t>(arch)]);
    JobConfig c = Sized(arch, 1, 0);
    const auto plain = PlanOf(c);
    c.memory.recompute = Recompute::kBlock;
    const auto block = PlanOf(c);
    ASSERT_TRUE(plain.ok()) << plain.status();
    ASSERT_TRUE(block.ok()) << block.status();
    const std::set<std::string> forward = LaunchesOf(*plain, Action::kF), backward = LaunchesOf(*plain, Action::kB);
    EXPECT_EQ(LaunchesOf(*block, Action::kF), forward);
    int again = 0;
    for (const std::string& launch : LaunchesOf(*block, Action::kB)) {
      if (backward.contains(launch)) continue;
      EXPECT_TRUE(forward.contains(launch)) << launch;
      ++again;
    }
    EXPECT_GT(again, 0);
  }
}

// A tensor as large as its bucket, such as the gain of the head's norm, is a view of it like others.
TEST(GpuPlan, ATensorMayFillItsBucket) {
  STRATA_NEEDS_CUDA_KERNELS();
  JobConfig c = Sized(ModelArch::kLlama, 2, 3);
  c.model.dim = 1024;
  c.model.heads = 8;
  const auto planned = PlanOf(c);
  ASSERT_TRUE(planned.ok()) << planned.status();
  const PlannedState *gain = planned->plan.FindState("head.norm.weight"), *bucket = nullptr;
  for (const PlannedState& s : planned->plan.states) {
    if (s.spec.shape == gain->spec.shape && s.name.find("bucket.head") == 0 && s.role == Role::kParam) bucket = &s;
  }
  ASSERT_NE(bucket, nullptr);
  EXPECT_EQ(gain->count, 512);  // of 1024, on rank 0 of 2
  EXPECT_EQ(gain->ref, bucket->ref);
}

// Between GPUs of one process shards are copied and a kernel adds them up; what NCCL or the host carries is left to it.
TEST(GpuPlan, ScattersAreExchangesBetweenPeersOnly) {
  STRATA_NEEDS_CUDA_KERNELS();
  for (const auto& [transport, exchanged] : {std::pair(Transport::kAuto, true), std::pair(Transport::kPeers, true),
                                             std::pair(Transport::kNccl, false), std::pair(Transport::kHost, false)}) {
    JobConfig config = Sized(ModelArch::kLlama, 2, 1);
    config.parallel.comm.transport = transport;
    const auto p = PlanOf(config, ReduceScatterBy::kAuto);
    ASSERT_TRUE(p.ok()) << p.status();
    int sums = 0;
    for (const Segment& segment : p->plan.programs[kTrain].segments) {
      sums += static_cast<int>(std::count_if(segment.steps.begin(), segment.steps.end(), [](const Step& s) {
        return s.op != nullptr && s.op->name() == "sum_blocks";
      }));
    }
    EXPECT_EQ(sums, exchanged ? 5 : 0) << static_cast<int>(transport);  // embedding, three blocks, head
  }
}

}  // namespace
}  // namespace strata::testing
