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

// More ranges than one launch takes, of odd offsets and counts, some empty.
std::vector<DecayRange> ManyRanges() {
  std::vector<DecayRange> ranges;
  for (int64_t i = 0; i < 150; ++i) ranges.push_back({{i * 60 + i % 7, i % 11 == 0 ? 0 : 37 + i % 5}, 0.1 * (i % 3)});
  return ranges;
}

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
  for (const int64_t n : {1, 1024, 10007, 200000}) {
    SCOPED_TRACE(n);
    ExpectClose(RunAdamW(0, {}), Operands(n, 2), Step(0.1));
    ExpectClose(RunAdamW(1, {{{0, n}, 0.1}}), Operands(n, 2), Step(0.1));
  }
  ExpectClose(RunAdamW(1, ManyRanges()), Operands(10007, 2), Step(0.1));
}

TEST(CudaOptimizer, Sgd) {
  STRATA_NEEDS_GPU();
  for (const bool nesterov : {false, true}) {
    for (const int64_t n : {1, 10007}) {
      std::vector<Tensor> in = Operands(n, 2);
      in.erase(in.begin() + 3);
      ExpectClose(RunSgd(nesterov, n > 1 ? ManyRanges() : std::vector<DecayRange>{}), in, Step(0.1));
    }
  }
}

TEST(CudaOptimizer, LiveWeightsAreRounded) {
  STRATA_NEEDS_GPU();
  for (const int64_t n : {1027, 4096}) {
    std::vector<Tensor> in;
    for (const Tensor& t : Operands(n, 2)) in.push_back(Converted(t, DType::kF32));
    std::vector<Tensor> sgd = {in[0], in[1], in[2], in[4], Tensor::Zeros(DType::kBF16, {n})};
    in.push_back(Tensor::Zeros(DType::kBF16, {n}));
    for (const auto& [fn, inputs] : {std::pair{RunAdamW(1, {}), in}, {RunSgd(false, {}), sgd}}) {
      const auto errors = GpuKernelErrors(fn, inputs, {}, {.scalars = Step(0.1)});
      ASSERT_TRUE(errors.ok()) << errors.status();
      EXPECT_LE(errors->front(), 1e-5) << "the CPU takes 1 - beta in float32";
      EXPECT_LE(errors->back(), 1e-3) << "few are rounded the other way";
    }
  }
}

TEST(CudaOptimizer, HeldBackSteps) {
  STRATA_NEEDS_GPU();
  StepScalars skip = Step(0.1);
  skip.skip_update = 1;
  for (const auto& [norm, scalars] : {std::pair{2.0, skip}, {kNaN, Step(0.1)}}) {
    const std::vector<Tensor> in = Operands(1000, norm);
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
