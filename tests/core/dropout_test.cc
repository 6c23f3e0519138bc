#include "core/ops/dropout.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/testing/op_checks.h"
#include "tests/testing/shard_checks.h"

namespace strata::testing {
namespace {

constexpr double kRate = 0.3;
using Values = std::vector<Value>;

Values Drop(GraphBuilder& g, const Values& in) { return {Dropout(g, in[0], in[1], in[2], kRate)}; }

Tensor Ones(Shape shape) { return Tensor::Of(shape, std::vector<double>(shape.elements(), 1)); }
Tensor Ints(const std::vector<double>& values) {
  return Tensor::Of({static_cast<int64_t>(values.size())}, values, DType::kI32);
}
std::vector<double> Range(int64_t first, int64_t n) {
  std::vector<double> v(n);
  for (int64_t i = 0; i < n; ++i) v[i] = static_cast<double>(first + i);
  return v;
}

std::vector<double> Mask(const std::vector<Tensor>& in, uint64_t seed = 1, uint64_t step = 1) {
  EvalOptions options;
  options.scalars = {.seed = seed, .step = step};
  const auto y = Call(Drop, in, options);
  EXPECT_TRUE(y.ok()) << y.status();
  std::vector<double> mask;
  for (int64_t i = 0; y.ok() && i < (*y)[0].size(); ++i) mask.push_back((*y)[0].at(i));
  return mask;
}

TEST(Dropout, KeepsTheRateAndScales) {
  const std::vector<double> mask = Mask({Ones({8, 32, 128}), Ints(Range(0, 8)), Ints(Range(0, 32))});
  double kept = 0;
  for (double m : mask) {
    ASSERT_TRUE(m == 0 || std::abs(m - 1 / (1 - kRate)) < 1e-15) << m;
    kept += m != 0;
  }
  const double n = static_cast<double>(mask.size());
  EXPECT_NEAR(kept / n, 1 - kRate, 4 * std::sqrt(kRate * (1 - kRate) / n));  // 4 standard deviations
}

// Rows of a large batch, and parts of them, have the masks that they have alone.
TEST(Dropout, DependsOnSamplePositionAndFeatureOnly) {
  const int64_t S = 6, E = 10;
  const std::vector<double> all = Mask({Ones({4, S, E}), Ints({7, 3, 9, 2147483647}), Ints(Range(0, S))});
  for (const auto& [row, sample] : {std::pair(1, 3.0), std::pair(3, 2147483647.0)}) {
    const std::vector<double> one = Mask({Ones({1, 2, E}), Ints({sample}), Ints({4, 1})});
    for (int64_t e = 0; e < E; ++e) {
      EXPECT_EQ(one[e], all[(row * S + 4) * E + e]);
      EXPECT_EQ(one[E + e], all[(row * S + 1) * E + e]);
    }
  }
}

TEST(Dropout, ChangesWithSeedStepSampleAndPosition) {
  const Tensor x = Ones({1, 1, 256});
  const std::vector<double> mask = Mask({x, Ints({5}), Ints({6})});
  EXPECT_EQ(mask, Mask({x, Ints({5}), Ints({6})}));
  EXPECT_NE(mask, Mask({x, Ints({5}), Ints({6})}, 2));
  EXPECT_NE(mask, Mask({x, Ints({5}), Ints({6})}, 1, 2));
  EXPECT_NE(mask, Mask({x, Ints({6}), Ints({6})}));
  EXPECT_NE(mask, Mask({x, Ints({5}), Ints({5})}));
}

TEST(Dropout, TwoNodesHaveTwoMasks) {
  const GraphFn two = [](GraphBuilder& g, const Values& in) {
    return Values{Dropout(g, in[0], in[1], in[2], kRate), Dropout(g, in[0], in[1], in[2], kRate)};
  };
  const auto y = Call(two, {Ones({1, 1, 256}), Ints({5}), Ints({6})});
  ASSERT_TRUE(y.ok()) << y.status();
  EXPECT_NE((*y)[0].data, (*y)[1].data);
}

TEST(Dropout, TheGradientHasTheForwardMask) {
  const auto error = GradientError(Drop, {Tensor::Random(DType::kF64, {2, 3, 11}, 1), Ints({4, 5}), Ints({0, 1, 2})});
  ASSERT_TRUE(error.ok()) << error.status();
  EXPECT_LE(*error, 1e-6);
}

TEST(Dropout, DTypesAndThreads) {
  const std::vector<Tensor> in = {Tensor::Random(DType::kF64, {3, 50, 33}, 1), Ints(Range(8, 3)), Ints(Range(0, 50))};
  for (DType t : {DType::kF32, DType::kBF16}) {
    const auto y = DTypeError(Drop, in, t);
    ASSERT_TRUE(y.ok()) << y.status();
    EXPECT_LE(*y, ToleranceOf(t));
  }
  EXPECT_EQ(CheckThreads(Drop, in), absl::OkStatus());
}

TEST(Dropout, ShardRules) {  // a shard of features that does not begin at a multiple of 4 too
  EXPECT_EQ(CheckShardRules(Drop, {Tensor::Random(DType::kF64, {2, 6, 10}, 1), Ints({4, 5}), Ints(Range(0, 6))}, 4),
            absl::OkStatus());
}

TEST(Dropout, RefusesRatesOutsideOfZeroToOne) {
  const std::vector<TensorSpec> in = {{DType::kF32, {2, 3, 4}, {}}, {DType::kI32, {2}, {}}, {DType::kI32, {3}, {}}};
  for (double rate : {-0.1, 1.0}) {
    const GraphFn fn = [rate](GraphBuilder& g, const Values& v) { return Values{Dropout(g, v[0], v[1], v[2], rate)}; };
    EXPECT_EQ(BuildError(fn, in).code(), absl::StatusCode::kInvalidArgument);
  }
}

}  // namespace
}  // namespace strata::testing
