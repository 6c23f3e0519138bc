// Whole jobs on the GPU against float64 on the CPU: fused graphs, captured segments, micro-batches, checkpointed states.
#include <gtest/gtest.h>

#include <span>
#include <tuple>

#include "absl/strings/str_format.h"
#include "tests/testing/gpu_job.h"
#include "tests/testing/step_trace.h"

namespace strata::testing {
namespace {

void ExpectTrainsAlike(const JobConfig& config) {
  const auto want = Measure(config);
  ASSERT_TRUE(want.ok()) << want.status();
  ExpectAlike(config, *want, kJobTolerances, Determinism::kBitExact);
  if (!SmallShapes()) ExpectAlike(config, *want);  // the fast one tries every algorithm of every product
}

TEST(CudaTrain, Llama) {
  STRATA_NEEDS_GPU();
  ExpectTrainsAlike(GpuJobOf(ModelArch::kLlama, 1));
  ExpectTrainsAlike(GpuJobOf(ModelArch::kLlama, 4));
}

// Of gradients whose squares are summed where they are written, and of the others, which AdamW's parameters would hardly show.
TEST(CudaTrain, NormsOfGradients) {
  STRATA_NEEDS_GPU();
  constexpr JobTolerance kNorms[] = {{DType::kF32, 2e-6, 2e-5, 1e-4}, {DType::kBF16, 5e-3, 1e-2, 1e-2}};
  for (const ModelArch arch : {ModelArch::kLlama, ModelArch::kGpt2, ModelArch::kBert}) {
    JobConfig c = GpuJobOf(arch, 1);
    c.model.dropout = 0;
    const auto want = Measure(c);
    ASSERT_TRUE(want.ok()) << want.status();
    ExpectAlike(c, *want, kNorms, Determinism::kBitExact);
    if (!SmallShapes()) ExpectAlike(c, *want, kNorms);
  }
}

TEST(CudaTrain, QwenWithBiasesAndWithNormsOfHeads) {
  STRATA_NEEDS_GPU();
  for (const ModelArch arch : {ModelArch::kQwen2, ModelArch::kQwen3}) {
    for (const int64_t kv_heads : {1, 2}) {
      JobConfig c = GpuJobOf(arch, 2);
      c.model.kv_heads = kv_heads;
      ExpectTrainsAlike(c);
    }
  }
}

TEST(CudaTrain, LlamaWithATiedHeadAndSgd) {
  STRATA_NEEDS_GPU();
  JobConfig c = GpuJobOf(ModelArch::kLlama, 2);
  c.model.tied = true;
  c.optim.type = OptimizerType::kSgd;
  ExpectTrainsAlike(c);
}

TEST(CudaTrain, Gpt2WithDropout) {
  STRATA_NEEDS_GPU();
  ExpectTrainsAlike(GpuJobOf(ModelArch::kGpt2, 2));
  JobConfig c = GpuJobOf(ModelArch::kGpt2, 1);
  c.model.dropout = 0;
  ExpectTrainsAlike(c);
}

TEST(CudaTrain, PackedDocuments) {
  STRATA_NEEDS_GPU();
  for (const ModelArch arch : {ModelArch::kLlama, ModelArch::kGpt2}) {
    JobConfig c = GpuJobOf(arch, 2);
    c.data.packing = Packing::kIsolate;
    c.model.dropout = 0;
    ExpectTrainsAlike(c);
  }
}

TEST(CudaTrain, Bert) {
  STRATA_NEEDS_GPU();
  ExpectTrainsAlike(GpuJobOf(ModelArch::kBert, 2));
  JobConfig c = GpuJobOf(ModelArch::kBert, 1);
  c.model.dropout = 0;
  ExpectTrainsAlike(c);
}

// The config of one rank, over two tensor-parallel ranks, or data-parallel ones.
JobConfig OnTwo(JobConfig c, bool tensor) {
  c.parallel.dp = tensor ? 1 : 2;
  c.parallel.tp = tensor ? 2 : 1;
  c.parallel.sequence_parallel = tensor;
  c.batch.micro /= c.parallel.dp;
  return c;
}

// Of the tests of what goes on between GPUs: no algorithm is timed, and cuDNN makes no plan.
constexpr Determinism kQuick = Determinism::kBitExact;

// Two ranks with a GPU each, over each transport of GPUs.
TEST(CudaTrain, TwoGpus) {
  STRATA_NEEDS_GPUS(2);
  for (const ModelArch arch : {ModelArch::kLlama, ModelArch::kGpt2, ModelArch::kBert}) {
    JobConfig one = GpuJobOf(arch, 2);
    one.model.vocab = 97;  // padded on tp
    const auto want = Measure(one);
    ASSERT_TRUE(want.ok()) << want.status();
    for (const bool tensor : {false, true}) {
      for (const Transport transport : {Transport::kPeers, Transport::kNccl}) {
        JobConfig c = OnTwo(one, tensor);
        c.parallel.comm.transport = transport;
        SCOPED_TRACE(absl::StrFormat("%s %s by %s", std::string(kModelArchNames[static_cast<int>(arch)]),
                                     tensor ? "tp 2" : "dp 2",
                                     std::string(kTransportNames[static_cast<int>(transport)])));
        ExpectAlike(c, *want, kJobTolerances, transport == Transport::kPeers ? Determinism::kFast : kQuick);
      }
    }
  }
}

// A GPU a pipeline rank; block 1 whole, and its halves on two ranks, and in two stages of one.
TEST(CudaTrain, PipelinesOnTwoGpus) {
  STRATA_NEEDS_GPUS(2);
  const struct {
    const char *schedule, *stages;
  } layouts[] = {{"1f1b", "E,0-1 | 2,H"}, {"zb-h1", "E,0-1a | 1b-2,H"}, {"zbv", "E,0 | 1a | 1b | 2,H"}};
  for (const ModelArch arch : {ModelArch::kLlama, ModelArch::kGpt2, ModelArch::kBert}) {
    JobConfig one = GpuJobOf(arch, 4);
    one.model.layers = 3;
    const auto want = Measure(one);
    ASSERT_TRUE(want.ok()) << want.status();
    for (const auto& [schedule, stages] : layouts) {
      for (const Transport transport : {Transport::kPeers, Transport::kNccl}) {
        if (transport == Transport::kNccl && arch != ModelArch::kLlama) continue;
        JobConfig c = one;
        c.parallel.pp = 2;
        c.parallel.schedule = schedule;
        c.parallel.stage_layout = stages;
        c.parallel.comm.transport = transport;
        SCOPED_TRACE(absl::StrFormat("%s %s by %s", std::string(kModelArchNames[static_cast<int>(arch)]), schedule,
                                     std::string(kTransportNames[static_cast<int>(transport)])));
        ExpectAlike(c, *want, kJobTolerances, kQuick);
      }
    }
  }
}

TEST(CudaTrain, PackedDocumentsOnTwoGpus) {
  STRATA_NEEDS_GPUS(2);
  JobConfig one = GpuJobOf(ModelArch::kLlama, 2);
  one.data.packing = Packing::kIsolate;
  one.model.kv_heads = 2;
  const auto want = Measure(one);
  ASSERT_TRUE(want.ok()) << want.status();
  for (const bool tensor : {false, true}) {
    SCOPED_TRACE(tensor ? "tp 2" : "dp 2");
    ExpectAlike(OnTwo(one, tensor), *want, kJobTolerances, kQuick);
  }
}

class CudaRecompute : public ::testing::TestWithParam<std::tuple<ModelArch, DType, Recompute>> {
 protected:
  static JobConfig Config(bool recomputes) {
    JobConfig c = GpuJobOf(std::get<0>(GetParam()), 2);
    if (recomputes) c.memory.recompute = std::get<2>(GetParam());
    return c;
  }
  static absl::StatusOr<JobRun> Run(bool recomputes, int steps, StepTrace* trace = nullptr) {
    return Train(Config(recomputes), std::get<1>(GetParam()), CudaKernels(Determinism::kBitExact), OpenGpu, steps,
                 trace);
  }
};
INSTANTIATE_TEST_SUITE_P(All, CudaRecompute,
                         ::testing::Combine(::testing::Values(ModelArch::kLlama, ModelArch::kGpt2, ModelArch::kBert),
                                            ::testing::Values(DType::kF32, DType::kBF16),
                                            ::testing::Values(Recompute::kSelective, Recompute::kBlock)),
                         [](const auto& info) {
                           return absl::StrFormat(
                               "%s_%s_%s", std::string(kModelArchNames[static_cast<int>(std::get<0>(info.param))]),
                               Name(std::get<1>(info.param)),
                               std::string(kRecomputeNames[static_cast<int>(std::get<2>(info.param))]));
                         });

TEST_P(CudaRecompute, HasTheSameBits) {
  STRATA_NEEDS_GPU();
  const auto want = Run(false, GpuJobSteps()), run = Run(true, GpuJobSteps());
  ASSERT_TRUE(want.ok()) << want.status();
  ASSERT_TRUE(run.ok()) << run.status();
  for (int s = 0; s < GpuJobSteps(); ++s) EXPECT_EQ(run->steps[s].loss, want->steps[s].loss) << "step " << s + 1;
  for (const auto& [name, values] : want->parameters) EXPECT_TRUE(run->parameters.at(name) == values) << name;
  if (!HasFailure()) return;
  StepTrace plain, recomputed;  // says which kernel it was
  for (StepTrace* trace : {&plain, &recomputed}) {
    const auto traced = Run(trace == &recomputed, 2, trace);
    ASSERT_TRUE(traced.ok()) << traced.status();
  }
  EXPECT_EQ(FirstDifferences(plain, recomputed), "");
}

void ExpectZeroTrainsAlike(ModelArch arch, std::span<const ZeroConfig> levels,
                           std::span<const JobTolerance> tolerances) {
  JobConfig one = GpuJobOf(arch, 2);
  one.model.dropout = 0;
  const auto want = Measure(one);
  ASSERT_TRUE(want.ok()) << want.status();
  for (const ZeroConfig& zero : levels) {
    JobConfig c = OnTwo(one, false);
    c.parallel.zero = zero;
    SCOPED_TRACE(absl::StrFormat("%s zero %d wires %d %d", std::string(kModelArchNames[static_cast<int>(arch)]),
                                 zero.stage, static_cast<int>(zero.weights), static_cast<int>(zero.gradients)));
    ExpectAlike(c, *want, tolerances, kQuick);
  }
}

TEST(CudaTrain, ZeroOnTwoGpus) {
  STRATA_NEEDS_GPUS(2);
  const ZeroConfig levels[] = {{.stage = 1}, {.stage = 2}, {.stage = 3}};
  for (const ModelArch arch : {ModelArch::kLlama, ModelArch::kGpt2, ModelArch::kBert}) {
    ExpectZeroTrainsAlike(arch, levels, kJobTolerances);
  }
  const ZeroConfig rounding[] = {{.stage = 3, .weights = Wire::kInt8, .gradients = Wire::kInt8},
                                 {.stage = 2, .gradients = Wire::kInt4}};
  const JobTolerance rounded[] = {{DType::kF32, 1e-2, 5e-2}};
  ExpectZeroTrainsAlike(ModelArch::kLlama, rounding, rounded);
}

TEST(CudaTrain, ZeroByAllToAllOnTwoGpus) {
  STRATA_NEEDS_GPUS(2);
  const ZeroConfig levels[] = {{.stage = 1, .scatter_by = ScatterBy::kAllToAll},
                               {.stage = 2, .scatter_by = ScatterBy::kAllToAll},
                               {.stage = 3, .scatter_by = ScatterBy::kAllToAll}};
  ExpectZeroTrainsAlike(ModelArch::kLlama, levels, kJobTolerances);
}

// Without NCCL: through pinned memory, and summed by the threads' world.
void ExpectStagedTrainsAlike(const OpenRankDevice& open) {
  JobConfig one = GpuJobOf(ModelArch::kLlama, 2);
  one.model.kv_heads = 2;
  const auto want = Measure(one);
  ASSERT_TRUE(want.ok()) << want.status();
  for (const bool tensor : {false, true}) {
    SCOPED_TRACE(tensor ? "tp 2" : "zero 2");
    JobConfig c = OnTwo(one, tensor);
    c.parallel.zero.stage = tensor ? 0 : 2;
    c.parallel.comm.transport = Transport::kHost;
    ExpectAlike(c, *want, kJobTolerances, kQuick, open);
  }
}

TEST(CudaTrain, StagedThroughTheHostOnTwoGpus) {
  STRATA_NEEDS_GPUS(2);
  ExpectStagedTrainsAlike(OpenGpu);
}

TEST(CudaTrain, StagedThroughTheHostTwoRanksOnOneGpu) {
  STRATA_NEEDS_GPU();
  ExpectStagedTrainsAlike([](int) { return OpenGpu(0); });
}

TEST(CudaTrain, RegisteredBuffersOnTwoGpus) {
  STRATA_NEEDS_GPUS(2);
  const JobConfig one = GpuJobOf(ModelArch::kLlama, 2);
  const auto want = Measure(one);
  ASSERT_TRUE(want.ok()) << want.status();
  for (const NcclBuffers buffers : {NcclBuffers::kRegistered, NcclBuffers::kSymmetric, NcclBuffers::kCopyEngine}) {
    SCOPED_TRACE(std::string(kNcclBuffersNames[static_cast<int>(buffers)]));
    JobConfig c = OnTwo(one, false);
    c.parallel.zero.stage = 2;
    c.parallel.comm.transport = Transport::kNccl;
    c.parallel.comm.buffers = buffers;
    ExpectAlike(c, *want, std::span(kJobTolerances).first(1), kQuick);
  }
}

TEST(CudaTrain, BitExactRunsRepeatTheirBits) {
  STRATA_NEEDS_GPU();
  for (const Packing packing : {Packing::kConcat, Packing::kIsolate}) {
    JobConfig c = GpuJobOf(ModelArch::kLlama, 2);
    c.data.packing = packing;
    std::vector<JobRun> runs;
    for (int i = 0; i < 2; ++i) {
      auto run = Train(c, DType::kBF16, CudaKernels(Determinism::kBitExact), OpenGpu);
      ASSERT_TRUE(run.ok()) << run.status();
      runs.push_back(*std::move(run));
    }
    EXPECT_EQ(runs[0].parameters, runs[1].parameters);
    for (int s = 0; s < GpuJobSteps(); ++s) EXPECT_EQ(runs[0].steps[s].loss, runs[1].steps[s].loss);
  }
}

}  // namespace
}  // namespace strata::testing
