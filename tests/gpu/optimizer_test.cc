#include "core/ops/optimizer.h"

#include <cmath>
#include <limits>

#include "core/ops/move.h"
#include "tests/testing/gpu.h"

namespace strata::testing {
namespace {

using Values = std::vector<Value>;
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

void ExpectClose(const GraphFn& fn, const std::vector<Tensor>& inputs, const StepScalars& scalars = {}) {
  const auto errors = GpuErrors(fn, inputs, DType::kF32, {.scalars = scalars});
  ASSERT_TRUE(errors.ok()) << errors.status();
  for (double e : *errors) EXPECT_LE(e, GpuTolerance(DType::kF32));
}

StepScalars Step(double lr) {
  StepScalars s;
  s.step = 3;
  s.lr = lr;
  return s;
}

// More ranges than one launch takes, of odd offsets and counts, some empty: one for each `step` elements.
std::vector<DecayRange> ManyRanges(int64_t step = 60) {
  std::vector<DecayRange> ranges;
  for (int64_t i = 0; i < 150; ++i) {
    ranges.push_back({{i * step + i % 7, i % 11 == 0 ? 0 : step - 23 + i % 5}, 0.1 * (i % 3)});
  }
  return ranges;
}

// Of so many elements blocks take several tiles each.
constexpr int64_t kManyTiles = 1200003;

// Weights, gradients, momentum, positive second moments, the norm.
std::vector<Tensor> Operands(int64_t n, double norm) {
  Tensor v = Tensor::Random(DType::kF64, {n}, 4);
  for (int64_t i = 0; i < n; ++i) v.set(i, v.at(i) * v.at(i));
  return {Tensor::Random(DType::kF64, {n}, 1), Tensor::Random(DType::kF64, {n}, 2), Tensor::Random(DType::kF64, {n}, 3),
          v, Tensor::Of({}, {norm})};
}

GraphFn RunAdamW(double max_norm, const std::vector<DecayRange>& segments) {
  return [=](GraphBuilder& g, const Values& in) {
    const AdamWSpec spec{.max_norm = max_norm, .segments = segments};
    const Value live = in.size() > 5 ? in[5] : Value{};
    const AdamWResults r = AdamW(g, spec, {in[0], in[1], in[2], in[3], in[4], live});
    return Values{r.weights, r.m, r.v};
  };
}
GraphFn RunSgd(bool nesterov, const std::vector<DecayRange>& segments) {
  return [=](GraphBuilder& g, const Values& in) {
    const SgdSpec spec{.max_norm = 0.5, .nesterov = nesterov, .segments = segments};
    const Value live = in.size() > 4 ? in[4] : Value{};
    const SgdResults r = Sgd(g, spec, {in[0], in[1], in[2], in[3], live});
    return Values{r.weights, r.u};
  };
}

TEST(CudaOptimizer, AdamW) {
  STRATA_NEEDS_GPU();
  for (const int64_t n : {int64_t{1}, int64_t{2048}, int64_t{10007}, kManyTiles}) {
    SCOPED_TRACE(n);
    ExpectClose(RunAdamW(0, {}), Operands(n, 2), Step(0.1));
    ExpectClose(RunAdamW(1, {{{0, n}, 0.1}}), Operands(n, 2), Step(0.1));
  }
  ExpectClose(RunAdamW(1, ManyRanges()), Operands(10007, 2), Step(0.1));
  ExpectClose(RunAdamW(1, ManyRanges(kManyTiles / 150)), Operands(kManyTiles, 2), Step(0.1));
}

// What is left of a thousand steps, and betas of 0, whose moments are the gradients.
TEST(CudaOptimizer, AdamWByStepAndBetas) {
  STRATA_NEEDS_GPU();
  for (const uint64_t step : {1, 1000}) {
    for (const double beta : {0.0, 0.9, 0.999}) {
      const auto fn = [beta](GraphBuilder& g, const Values& in) {
        const AdamWResults r = AdamW(g, {.beta1 = beta, .beta2 = beta}, {in[0], in[1], in[2], in[3], in[4]});
        return Values{r.weights, r.m, r.v};
      };
      StepScalars scalars = Step(0.1);
      scalars.step = step;
      ExpectClose(fn, Operands(10007, 2), scalars);
    }
  }
}

TEST(CudaOptimizer, Sgd) {
  STRATA_NEEDS_GPU();
  for (const bool nesterov : {false, true}) {
    for (const int64_t n : {int64_t{1}, int64_t{10007}, kManyTiles}) {
      std::vector<Tensor> in = Operands(n, 2);
      in.erase(in.begin() + 3);
      ExpectClose(RunSgd(nesterov, n > 1 ? ManyRanges(n / 150) : std::vector<DecayRange>{}), in, Step(0.1));
    }
  }
}

// Gradients of either dtype, live weights, a part of a bucket that begins anywhere in it.
TEST(CudaOptimizer, LiveWeightsAreRounded) {
  STRATA_NEEDS_GPU();
  const auto shard = [](std::span<TensorRef>, std::span<TensorRef> out) { out[0].origin[0] = 977; };
  for (const DType gradients : {DType::kF32, DType::kBF16}) {
    for (const int64_t n : {int64_t{10007}, int64_t{16384}, kManyTiles}) {
      std::vector<Tensor> in;
      for (const Tensor& t : Operands(n, 2)) in.push_back(Converted(t, DType::kF32));
      in[1] = Converted(in[1], gradients);
      std::vector<Tensor> sgd = {in[0], in[1], in[2], in[4], Tensor::Zeros(DType::kBF16, {n})};
      in.push_back(Tensor::Zeros(DType::kBF16, {n}));
      const std::vector<DecayRange> ranges = ManyRanges(n / 150);
      for (const auto& [fn, inputs] : {std::pair{RunAdamW(1, ranges), in}, {RunSgd(false, ranges), sgd}}) {
        const auto errors = GpuKernelErrors(fn, inputs, shard, {.scalars = Step(0.1)});
        ASSERT_TRUE(errors.ok()) << errors.status();
        EXPECT_LE(errors->front(), 1e-5) << "the CPU takes 1 - beta in float32";
        EXPECT_LE(errors->back(), 1e-3) << "few are rounded the other way";
      }
    }
  }
}

// Weights in halves: as the CPU's, and at a learning rate of 0 in every bit what they were.
TEST(CudaOptimizer, HalvesOfWeights) {
  STRATA_NEEDS_GPU();
  const auto shard = [](std::span<TensorRef>, std::span<TensorRef> out) { out[0].origin[0] = 977; };
  for (const DType gradients : {DType::kF32, DType::kBF16}) {
    for (const int64_t n : {int64_t{10007}, int64_t{16384}, kManyTiles}) {
      SCOPED_TRACE(n);
      std::vector<Tensor> in;
      for (const Tensor& t : Operands(n, 2)) in.push_back(Converted(t, DType::kF32));
      in.push_back(Converted(in[0], DType::kBF16));
      in[0] = Tensor::Zeros(DType::kLow16, {n});
      for (int64_t i = 0; i < n; ++i) in[0].set(i, static_cast<double>(i * 40503 % 65536));
      in[1] = Converted(in[1], gradients);
      const std::vector<Tensor> sgd = {in[0], in[1], in[2], in[4], in[5]};
      const std::vector<DecayRange> ranges = ManyRanges(n / 150);
      for (const auto& [fn, inputs] : {std::pair{RunAdamW(1, ranges), in}, {RunSgd(false, ranges), sgd}}) {
        const auto moved = GpuKernelErrors(fn, inputs, shard, {.scalars = Step(0.1)});
        ASSERT_TRUE(moved.ok()) << moved.status();
        for (size_t i = 1; i + 1 < moved->size(); ++i) EXPECT_LE((*moved)[i], 1e-5);  // the moments
        EXPECT_LE(moved->back(), 1e-3);
        const auto still = GpuKernelErrors(fn, inputs, shard, {.scalars = Step(0)});
        ASSERT_TRUE(still.ok()) << still.status();
        EXPECT_EQ(still->front(), 0);
        EXPECT_EQ(still->back(), 0);
      }
    }
  }
}

TEST(CudaOptimizer, HeldBackSteps) {
  STRATA_NEEDS_GPU();
  StepScalars skip = Step(0.1);
  skip.skip_update = 1;
  for (const auto& [norm, scalars] : {std::pair{2.0, skip}, {kNaN, Step(0.1)}}) {
    const std::vector<Tensor> in = Operands(100003, norm);
    const auto errors = GpuErrors(RunAdamW(1, {}), in, DType::kF32, {.scalars = scalars});
    ASSERT_TRUE(errors.ok()) << errors.status();
    for (double e : *errors) EXPECT_EQ(e, 0);
  }
}

TEST(CudaOptimizer, SumOfSquares) {
  STRATA_NEEDS_GPU();
  std::vector<FlatRange> many;
  for (const DecayRange& r : ManyRanges()) many.push_back(r.range);
  for (const std::vector<FlatRange>& ranges :
       {std::vector<FlatRange>{}, {{0, 100000}}, {{0, 7}, {64, 40000}, {50001, 33333}}, many}) {
    ExpectClose([&](GraphBuilder& g, const Values& in) { return Values{SumSquares(g, in[0], ranges)}; },
                {Tensor::Random(DType::kF64, {100003}, 1)});
  }
  constexpr int64_t kMany = 4500007;  // some blocks take two tiles
  ExpectClose(
      [](GraphBuilder& g, const Values& in) {
        return Values{SumSquares(g, in[0], {{0, kMany}})};
      },
      {Tensor::Random(DType::kF64, {kMany}, 1)});
}

TEST(CudaOptimizer, SqrtAndGuard) {
  STRATA_NEEDS_GPU();
  ExpectClose([](GraphBuilder& g, const Values& in) { return Values{Sqrt(g, in[0])}; }, {Tensor::Of({}, {7})});
  StepScalars limit;
  limit.loss_limit = 3;
  for (const auto& [norm, loss] : {std::pair{2.0, 3.0}, {2.0, 3.5}, {kNaN, 1.0}, {1.0, kNaN}, {INFINITY, 1.0}}) {
    ExpectClose([](GraphBuilder& g, const Values& in) { return Values{Guard(g, in[0], in[1])}; },
                {Tensor::Of({}, {norm}), Tensor::Of({}, {loss})}, limit);
  }
}

}  // namespace
}  // namespace strata::testing
