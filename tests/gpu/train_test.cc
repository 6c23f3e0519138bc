// Whole jobs on the GPU against float64 on the CPU: fused graphs, captured segments, micro-batches, checkpointed states.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>
#include <span>
#include <tuple>

#include "absl/strings/str_format.h"
#include "tests/testing/gpu.h"
#include "tests/testing/small_job.h"
#include "tests/testing/step_trace.h"

namespace strata::testing {
namespace {

constexpr int kSteps = 6;  // segments are captured at their second run and replayed from the third on

absl::StatusOr<std::unique_ptr<Device>> OpenGpu(int rank) { return CudaDevice::Open(rank); }

absl::StatusOr<JobRun> Train(JobConfig config, DType dtype, const KernelTable& kernels, const OpenRankDevice& open,
                             int num_steps = kSteps, StepTrace* trace = nullptr) {
  config.precision.compute = dtype;
  std::vector<int> steps(num_steps);
  std::iota(steps.begin(), steps.end(), 1);
  return RunJob(config, steps, TableRows(config.model.vocab, 3), std::numeric_limits<double>::infinity(), kernels,
                nullptr, open, trace);
}

// ||a - b|| / ||b|| over all parameters.
double Distance(const JobRun& a, const JobRun& b) {
  double difference = 0, norm = 0;
  for (const auto& [name, values] : b.parameters) {
    for (size_t i = 0; i < values.size(); ++i) {
      const double d = a.parameters.at(name)[i] - values[i];
      difference += d * d;
      norm += values[i] * values[i];
    }
  }
  return std::sqrt(difference / norm);
}

struct Tolerance {
  DType dtype;
  double loss, parameters;  // relative
};
constexpr Tolerance kTolerances[] = {{DType::kF32, 2e-6, 2e-5}, {DType::kBF16, 5e-3, 1e-2}};

void ExpectTrainsAlike(const JobConfig& config) {
  const auto want = Train(config, DType::kF64, CpuKernels(), nullptr);
  ASSERT_TRUE(want.ok()) << want.status();
  for (const Determinism determinism : {Determinism::kFast, Determinism::kBitExact}) {
    for (const auto& [dtype, loss, parameters] : kTolerances) {
      const auto run = Train(config, dtype, CudaKernels(determinism), OpenGpu);
      ASSERT_TRUE(run.ok()) << run.status();
      for (int s = 0; s < kSteps; ++s) {
        EXPECT_NEAR(run->steps[s].loss / want->steps[s].loss, 1, loss) << Name(dtype) << " step " << s + 1;
      }
      EXPECT_EQ(run->eval_tokens, want->eval_tokens);
      EXPECT_NEAR(run->eval_nats / want->eval_nats, 1, loss) << Name(dtype);
      EXPECT_LE(Distance(*run, *want), parameters) << Name(dtype);
    }
  }
}

// Sizes that cuDNN and adjacent weights need.
JobConfig Sized(ModelArch arch, int64_t accumulate) {
  JobConfig c = SmallJobOf(arch, 1, 1, accumulate);
  c.model.vocab = 96;
  c.model.dim = 128;
  c.model.heads = 2;
  c.model.kv_heads = arch == ModelArch::kLlama ? 1 : 2;
  c.model.ffn = 192;
  c.model.seq = 64;
  c.model.init_std = 0.05;
  if (arch == ModelArch::kBert) c.model.mask_token = 95;
  c.batch = {.tokens = 8 * 64, .micro = 8 / accumulate, .accumulate = accumulate};
  c.optim.lr = 1e-3;
  return c;
}

TEST(CudaTrain, Llama) {
  STRATA_NEEDS_GPU();
  ExpectTrainsAlike(Sized(ModelArch::kLlama, 1));
  ExpectTrainsAlike(Sized(ModelArch::kLlama, 4));
}

TEST(CudaTrain, QwenWithBiasesAndWithNormsOfHeads) {
  STRATA_NEEDS_GPU();
  for (const ModelArch arch : {ModelArch::kQwen2, ModelArch::kQwen3}) {
    for (const int64_t kv_heads : {1, 2}) {
      JobConfig c = Sized(arch, 2);
      c.model.kv_heads = kv_heads;
      ExpectTrainsAlike(c);
    }
  }
}

TEST(CudaTrain, LlamaWithATiedHeadAndSgd) {
  STRATA_NEEDS_GPU();
  JobConfig c = Sized(ModelArch::kLlama, 2);
  c.model.tied = true;
  c.optim.type = OptimizerType::kSgd;
  ExpectTrainsAlike(c);
}

TEST(CudaTrain, Gpt2WithDropout) {
  STRATA_NEEDS_GPU();
  ExpectTrainsAlike(Sized(ModelArch::kGpt2, 2));
  JobConfig c = Sized(ModelArch::kGpt2, 1);
  c.model.dropout = 0;
  ExpectTrainsAlike(c);
}

TEST(CudaTrain, PackedDocuments) {
  STRATA_NEEDS_GPU();
  for (const ModelArch arch : {ModelArch::kLlama, ModelArch::kGpt2}) {
    JobConfig c = Sized(arch, 2);
    c.data.packing = Packing::kIsolate;
    c.model.dropout = 0;
    ExpectTrainsAlike(c);
  }
}

TEST(CudaTrain, Bert) {
  STRATA_NEEDS_GPU();
  ExpectTrainsAlike(Sized(ModelArch::kBert, 2));
  JobConfig c = Sized(ModelArch::kBert, 1);
  c.model.dropout = 0;
  ExpectTrainsAlike(c);
}

// Two ranks with a GPU each, over each transport of GPUs. float64 on one CPU rank is the measure, as above.
TEST(CudaTrain, TwoGpus) {
  STRATA_NEEDS_GPUS(2);
  for (const ModelArch arch : {ModelArch::kLlama, ModelArch::kGpt2, ModelArch::kBert}) {
    for (const bool tensor : {false, true}) {
      JobConfig c = Sized(arch, 2);
      c.model.vocab = 97;  // padded on tp
      const auto want = Train(c, DType::kF64, CpuKernels(), nullptr);
      ASSERT_TRUE(want.ok()) << want.status();
      c.parallel.dp = tensor ? 1 : 2;
      c.parallel.tp = tensor ? 2 : 1;
      c.parallel.sequence_parallel = true;  // where there is tp
      c.batch.micro = tensor ? 4 : 2;
      for (const Transport transport : {Transport::kPeers, Transport::kNccl}) {
        SCOPED_TRACE(kTransportNames[static_cast<int>(transport)]);
        c.parallel.comm.transport = transport;
        for (const auto& [dtype, loss, parameters] : kTolerances) {
          const auto run = Train(c, dtype, CudaKernels(Determinism::kFast), OpenGpu);
          ASSERT_TRUE(run.ok()) << run.status();
          for (int s = 0; s < kSteps; ++s) {
            EXPECT_NEAR(run->steps[s].loss / want->steps[s].loss, 1, loss) << Name(dtype) << " step " << s + 1;
          }
          EXPECT_LE(Distance(*run, *want), parameters) << Name(dtype) << (tensor ? " tp 2" : " dp 2");
        }
      }
    }
  }
}

TEST(CudaTrain, PackedDocumentsOnTwoGpus) {
  STRATA_NEEDS_GPUS(2);
  for (const bool tensor : {false, true}) {
    JobConfig c = Sized(ModelArch::kLlama, 2);
    c.data.packing = Packing::kIsolate;
    c.model.kv_heads = 2;
    const auto want = Train(c, DType::kF64, CpuKernels(), nullptr);
    ASSERT_TRUE(want.ok()) << want.status();
    c.parallel.dp = tensor ? 1 : 2;
    c.parallel.tp = tensor ? 2 : 1;
    c.parallel.sequence_parallel = tensor;
    c.batch.micro = tensor ? 4 : 2;
    for (const auto& [dtype, loss, parameters] : kTolerances) {
      const auto run = Train(c, dtype, CudaKernels(Determinism::kFast), OpenGpu);
      ASSERT_TRUE(run.ok()) << run.status();
      for (int s = 0; s < kSteps; ++s) {
        EXPECT_NEAR(run->steps[s].loss / want->steps[s].loss, 1, loss) << Name(dtype) << " step " << s + 1;
      }
      EXPECT_LE(Distance(*run, *want), parameters) << Name(dtype) << (tensor ? " tp 2" : " dp 2");
    }
  }
}

class CudaRecompute : public ::testing::TestWithParam<std::tuple<ModelArch, DType, Recompute>> {
 protected:
  static JobConfig Config(bool recomputes) {
    JobConfig c = Sized(std::get<0>(GetParam()), 2);
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
  const auto want = Run(false, kSteps), run = Run(true, kSteps);
  ASSERT_TRUE(want.ok()) << want.status();
  ASSERT_TRUE(run.ok()) << run.status();
  for (int s = 0; s < kSteps; ++s) EXPECT_EQ(run->steps[s].loss, want->steps[s].loss) << "step " << s + 1;
  for (const auto& [name, values] : want->parameters) {
    EXPECT_TRUE(run->parameters.at(name) == values) << name;  // which ones says where it began
  }
}

// Every kernel of the one plan does what one of the other did: names the first that does not.
TEST_P(CudaRecompute, RepeatsWhatItsKernelsDid) {
  STRATA_NEEDS_GPU();
  constexpr int kTraced = 2;
  StepTrace plain, recomputed;
  for (StepTrace* trace : {&plain, &recomputed}) {
    const auto run = Run(trace == &recomputed, kTraced, trace);
    ASSERT_TRUE(run.ok()) << run.status();
  }
  EXPECT_GT(recomputed.entries().size(), plain.entries().size());
  EXPECT_EQ(FirstDifferences(plain, recomputed), "");
}

// Two ranks with a GPU each against float64 on one CPU rank, which sees the same rows.
void ExpectZeroTrainsAlike(ModelArch arch, std::span<const ZeroConfig> levels, std::span<const Tolerance> tolerances) {
  JobConfig c = Sized(arch, 2);
  c.model.dropout = 0;
  const auto want = Train(c, DType::kF64, CpuKernels(), nullptr);
  ASSERT_TRUE(want.ok()) << want.status();
  c.parallel.dp = 2;
  c.batch.micro = 2;
  for (const ZeroConfig& zero : levels) {
    for (const Tolerance& t : tolerances) {
      c.parallel.zero = zero;
      SCOPED_TRACE(::testing::Message() << "arch " << static_cast<int>(arch) << " zero " << zero.stage << " "
                                        << Name(t.dtype) << " wires " << static_cast<int>(zero.weights)
                                        << static_cast<int>(zero.gradients));
      const auto run = Train(c, t.dtype, CudaKernels(Determinism::kFast), OpenGpu);
      ASSERT_TRUE(run.ok()) << run.status();
      for (int s = 0; s < kSteps; ++s) {
        EXPECT_NEAR(run->steps[s].loss / want->steps[s].loss, 1, t.loss) << "step " << s + 1;
      }
      EXPECT_NEAR(run->eval_nats / want->eval_nats, 1, t.loss);
      EXPECT_LE(Distance(*run, *want), t.parameters);
    }
  }
}

TEST(CudaTrain, ZeroOnTwoGpus) {
  STRATA_NEEDS_GPUS(2);
  const ZeroConfig levels[] = {{.stage = 1}, {.stage = 2}, {.stage = 3}};
  for (const ModelArch arch : {ModelArch::kLlama, ModelArch::kGpt2, ModelArch::kBert}) {
    ExpectZeroTrainsAlike(arch, levels, kTolerances);
  }
  const ZeroConfig rounding[] = {{.stage = 3, .weights = Wire::kInt8, .gradients = Wire::kInt8},
                                 {.stage = 2, .gradients = Wire::kInt4}};
  const Tolerance rounded[] = {{DType::kF32, 1e-2, 5e-2}};
  ExpectZeroTrainsAlike(ModelArch::kLlama, rounding, rounded);
}

TEST(CudaTrain, ZeroByAllToAllOnTwoGpus) {
  STRATA_NEEDS_GPUS(2);
  const ZeroConfig levels[] = {{.stage = 1, .scatter_by = ScatterBy::kAllToAll},
                               {.stage = 2, .scatter_by = ScatterBy::kAllToAll},
                               {.stage = 3, .scatter_by = ScatterBy::kAllToAll}};
  ExpectZeroTrainsAlike(ModelArch::kLlama, levels, kTolerances);
}

// Without NCCL: through pinned memory, and summed by the threads' world.
void ExpectStagedTrainsAlike(const OpenRankDevice& open) {
  for (const bool tensor : {false, true}) {
    JobConfig c = Sized(ModelArch::kLlama, 2);
    c.model.kv_heads = 2;
    const auto want = Train(c, DType::kF64, CpuKernels(), nullptr);
    ASSERT_TRUE(want.ok()) << want.status();
    c.parallel.dp = tensor ? 1 : 2;
    c.parallel.tp = tensor ? 2 : 1;
    c.parallel.sequence_parallel = tensor;
    c.parallel.zero.stage = tensor ? 0 : 2;
    c.parallel.comm.transport = Transport::kHost;
    c.batch.micro = tensor ? 4 : 2;
    for (const auto& [dtype, loss, parameters] : kTolerances) {
      const auto run = Train(c, dtype, CudaKernels(Determinism::kFast), open);
      ASSERT_TRUE(run.ok()) << run.status();
      for (int s = 0; s < kSteps; ++s) {
        EXPECT_NEAR(run->steps[s].loss / want->steps[s].loss, 1, loss) << Name(dtype) << " step " << s + 1;
      }
      EXPECT_LE(Distance(*run, *want), parameters) << Name(dtype) << (tensor ? " tp 2" : " zero 2");
    }
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
  for (const NcclBuffers buffers : {NcclBuffers::kRegistered, NcclBuffers::kSymmetric, NcclBuffers::kCopyEngine}) {
    JobConfig c = Sized(ModelArch::kLlama, 2);
    const auto want = Train(c, DType::kF64, CpuKernels(), nullptr);
    ASSERT_TRUE(want.ok()) << want.status();
    c.parallel.dp = 2;
    c.parallel.zero.stage = 2;
    c.parallel.comm.transport = Transport::kNccl;
    c.parallel.comm.buffers = buffers;
    c.batch.micro = 2;
    const auto run = Train(c, DType::kF32, CudaKernels(Determinism::kFast), OpenGpu);
    ASSERT_TRUE(run.ok()) << kNcclBuffersNames[static_cast<int>(buffers)] << ": " << run.status();
    EXPECT_LE(Distance(*run, *want), kTolerances[0].parameters);
  }
}

TEST(CudaTrain, BitExactRunsRepeatTheirBits) {
  STRATA_NEEDS_GPU();
  for (const Packing packing : {Packing::kConcat, Packing::kIsolate}) {
    JobConfig c = Sized(ModelArch::kLlama, 2);
    c.data.packing = packing;
    std::vector<JobRun> runs;
    for (int i = 0; i < 2; ++i) {
      auto run = Train(c, DType::kBF16, CudaKernels(Determinism::kBitExact), OpenGpu);
      ASSERT_TRUE(run.ok()) << run.status();
      runs.push_back(*std::move(run));
    }
    EXPECT_EQ(runs[0].parameters, runs[1].parameters);
    for (int s = 0; s < kSteps; ++s) EXPECT_EQ(runs[0].steps[s].loss, runs[1].steps[s].loss);
  }
}

}  // namespace
}  // namespace strata::testing
