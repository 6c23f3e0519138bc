// Weight gradients kept in bf16: the kernels that make and read them, and whole jobs.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <span>

#include "absl/strings/str_format.h"
#include "core/ops/elementwise.h"
#include "core/ops/embedding.h"
#include "core/ops/flat.h"
#include "core/ops/fused.h"
#include "core/ops/linear.h"
#include "core/ops/move.h"
#include "core/ops/optimizer.h"
#include "tests/testing/gpu_job.h"

namespace strata::testing {
namespace {

using Values = std::vector<Value>;

Tensor Random(DType dtype, const Shape& shape, uint64_t seed) {
  return Converted(Tensor::Random(DType::kF64, shape, seed), dtype);
}

// In bf16, and in float64 on the CPU.
void ExpectClose(const GraphFn& fn, const std::vector<Tensor>& inputs, const GpuOptions& options = {}) {
  const auto errors = GpuErrors(fn, inputs, DType::kBF16, options);
  ASSERT_TRUE(errors.ok()) << errors.status();
  for (double e : *errors) EXPECT_LE(e, GpuTolerance(DType::kBF16));
}

// The kernel of the last node, in the operands' own dtypes here and there.
void ExpectAsOnCpu(const GraphFn& fn, const std::vector<Tensor>& inputs, double tolerance,
                   const GpuOptions& options = {}) {
  const auto errors = GpuKernelErrors(fn, inputs, {}, options);
  ASSERT_TRUE(errors.ok()) << errors.status();
  for (double e : *errors) EXPECT_LE(e, tolerance);
}

TEST(CudaGradientsInBf16, ProductsRoundOnce) {
  STRATA_NEEDS_GPU();
  for (const auto& [rows, n, k] : {std::tuple(64, 192, 128), std::tuple(60, 40, 72), std::tuple(256, 512, 256)}) {
    const Tensor dy = Tensor::Random(DType::kF64, {2, rows, n}, 1), x = Tensor::Random(DType::kF64, {2, rows, k}, 2),
                 acc = Tensor::Random(DType::kF64, {n, k}, 3);
    ExpectClose([](GraphBuilder& g, const Values& in) { return g.Add(RoundedLinearDw(), in); }, {dy, x});
    ExpectClose(
        [](GraphBuilder& g, const Values& in) { return LinearDwAcc(g, std::vector{in[0]}, in[1], in[2], false); },
        {acc, dy, x});
  }
}

TEST(CudaGradientsInBf16, TablesRoundOnce) {
  STRATA_NEEDS_GPU();
  for (const int64_t e : {24, 25}) {
    for (const int64_t rows : {2, 50}) {  // of many tokens each, of a few
      const Tensor tokens = Tensor::RandomInts({2, 200}, 0, rows, 1), table = Tensor::Random(DType::kF64, {60, e}, 2),
                   dy = Tensor::Random(DType::kF64, {2, 200, e}, 3);
      ExpectClose([](GraphBuilder& g, const Values& in) { return g.Add(RoundedEmbeddingDw(), in); },
                  {tokens, dy, table});
      ExpectClose(
          [](GraphBuilder& g, const Values& in) { return Values{EmbeddingDwAcc(g, in[0], in[1], in[2], false)}; },
          {table, tokens, dy});
    }
  }
}

TEST(CudaGradientsInBf16, OthersAreRoundedWhereTheyLie) {
  STRATA_NEEDS_GPU();
  for (const int64_t n : {7, 4096, 10001}) {
    for (const DType x : {DType::kF32, DType::kBF16}) {
      ExpectAsOnCpu([](GraphBuilder& g, const Values& in) { return Values{Accumulate(g, in[0], in[1])}; },
                    {Random(DType::kBF16, {n}, 1), Random(x, {n}, 2)}, 0);
    }
    ExpectAsOnCpu(
        [n](GraphBuilder& g, const Values& in) {
          return Values{Pack(g, {in[0], in[1], in[2]}, {0, 10048, 10048 + n}, 10048 + 2 * n + 3, DType::kBF16)};
        },
        {Random(DType::kF32, {n}, 1), Random(DType::kBF16, {n}, 2), Random(DType::kF32, {n}, 3)}, 0);
  }
}

TEST(CudaGradientsInBf16, Update) {
  STRATA_NEEDS_GPU();
  StepScalars step;
  step.step = 3;
  step.lr = 0.1;
  for (const int64_t n : {1027, 4096, 200000}) {
    SCOPED_TRACE(n);
    Tensor v = Random(DType::kF32, {n}, 4);
    for (int64_t i = 0; i < n; ++i) v.set(i, v.at(i) * v.at(i));
    const std::vector<Tensor> in = {Random(DType::kF32, {n}, 1),      Random(DType::kBF16, {n}, 2),
                                    Random(DType::kF32, {n}, 3),      v,
                                    Tensor::Of({}, {2}, DType::kF32), Tensor::Zeros(DType::kBF16, {n})};
    const std::vector<DecayRange> decay = {{{n / 3, n / 2}, 0.1}};
    const auto adamw = [&](GraphBuilder& g, const Values& v) {
      const AdamWResults r = AdamW(g, {.max_norm = 1, .segments = decay}, {v[0], v[1], v[2], v[3], v[4], v[5]});
      return Values{r.weights, r.m, r.v};
    };
    const auto sgd = [&](GraphBuilder& g, const Values& v) {
      const SgdResults r = Sgd(g, {.max_norm = 1, .segments = decay}, {v[0], v[1], v[2], v[3], v[4]});
      return Values{r.weights, r.u};
    };
    const auto of_adamw = GpuKernelErrors(adamw, in, {}, {.scalars = step}),
               of_sgd = GpuKernelErrors(sgd, {in[0], in[1], in[2], in[4], in[5]}, {}, {.scalars = step});
    ASSERT_TRUE(of_adamw.ok() && of_sgd.ok()) << of_adamw.status() << of_sgd.status();
    for (const auto& errors : {*of_adamw, *of_sgd}) {
      for (size_t i = 0; i + 1 < errors.size(); ++i) EXPECT_LE(errors[i], 1e-5) << "the CPU takes 1 - beta in float32";
      EXPECT_LE(errors.back(), 1e-3) << "few live weights are rounded the other way";
    }
  }
}

TEST(CudaGradientsInBf16, SumOfSquares) {
  STRATA_NEEDS_GPU();
  for (const std::vector<FlatRange>& ranges :
       {std::vector<FlatRange>{{0, 100003}}, {{0, 7}, {64, 40000}, {50001, 33333}}}) {
    ExpectAsOnCpu([&](GraphBuilder& g, const Values& in) { return Values{SumSquares(g, in[0], ranges)}; },
                  {Random(DType::kBF16, {100003}, 1)}, 1e-5);
  }
  Tensor x = Random(DType::kBF16, {5000}, 1);
  x.set(4321, std::numeric_limits<double>::infinity());
  ExpectAsOnCpu([](GraphBuilder& g, const Values& in) { return Values{SumSquares(g, in[0], {{0, 5000}})}; }, {x}, 0);
}

JobConfig Sized(ModelArch arch) {
  JobConfig c = GpuJobOf(arch, 1);
  c.model.dropout = 0;
  c.precision.gradients = GradientFormat::kBf16;
  return c;
}

// Losses and gradient norms; parameters within their own norm.
void ExpectJobAlike(const JobConfig& config, const OpenRankDevice& open, const absl::StatusOr<JobRun>& want) {
  constexpr JobTolerance kTolerance[] = {{DType::kBF16, 5e-3, 1, 1e-2}};
  ASSERT_TRUE(want.ok()) << want.status();
  ExpectAlike(config, *want, kTolerance, Determinism::kBitExact, open);
}

absl::StatusOr<std::unique_ptr<Device>> OpenFirst(int) { return OpenGpu(0); }

TEST(CudaGradientsInBf16, Jobs) {
  STRATA_NEEDS_GPU();
  for (const ModelArch arch : {ModelArch::kLlama, ModelArch::kQwen2, ModelArch::kGpt2, ModelArch::kBert}) {
    SCOPED_TRACE(kModelArchNames[static_cast<size_t>(arch)]);
    ExpectJobAlike(Sized(arch), OpenFirst, Measure(Sized(arch)));
  }
  JobConfig sgd = Sized(ModelArch::kLlama);
  sgd.optim.type = OptimizerType::kSgd;
  ExpectJobAlike(sgd, OpenFirst, Measure(sgd));
}

constexpr ZeroConfig kLevels[] = {{.stage = 2}, {.stage = 1, .scatter_by = ScatterBy::kAllToAll}, {}, {.stage = 1},
                                  {.stage = 3}, {.stage = 2, .scatter_by = ScatterBy::kAllToAll}};

void ExpectShardedJobsAlike(ModelArch arch, std::span<const ZeroConfig> levels, Transport transport,
                            const OpenRankDevice& open) {
  JobConfig two = Sized(arch);
  const auto want = Measure(two);
  two.parallel.dp = 2;
  two.batch.micro = 4;
  two.parallel.comm.transport = transport;
  for (const ZeroConfig& zero : levels) {
    SCOPED_TRACE(absl::StrFormat("%s zero %d %s by %s", std::string(kModelArchNames[static_cast<size_t>(arch)]),
                                 zero.stage, std::string(kScatterByNames[static_cast<size_t>(zero.scatter_by)]),
                                 std::string(kTransportNames[static_cast<size_t>(transport)])));
    two.parallel.zero = zero;
    ExpectJobAlike(two, open, want);
  }
}

TEST(CudaGradientsInBf16, ShardedJobsOnOneGpu) {
  STRATA_NEEDS_GPU();
  ExpectShardedJobsAlike(ModelArch::kLlama, kLevels, Transport::kHost, OpenFirst);
  ExpectShardedJobsAlike(ModelArch::kQwen2, std::span(kLevels).first(1), Transport::kHost, OpenFirst);
}

TEST(CudaGradientsInBf16, ShardedJobsOnTwoGpus) {
  STRATA_NEEDS_GPUS(2);
  for (const Transport transport : {Transport::kPeers, Transport::kNccl}) {
    ExpectShardedJobsAlike(ModelArch::kLlama, std::span(kLevels).first(3), transport, OpenGpu);
  }
}

}  // namespace
}  // namespace strata::testing
