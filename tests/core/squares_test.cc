#include "core/ops/squares.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "core/ops/fused.h"
#include "tests/testing/op_checks.h"

namespace strata::testing {
namespace {

using ::testing::HasSubstr;
using Values = std::vector<Value>;

constexpr int64_t kLong = 40'000;  // several tiles

double SquaresOf(const Tensor& x, const FlatRange& r) {
  double sum = 0;
  for (int64_t i = r.offset; i < r.offset + r.count; ++i) sum += x.at(i) * x.at(i);
  return sum;
}
double SquaresOf(const Tensor& x) { return SquaresOf(x, {0, x.size()}); }
double SumOf(const Tensor& x) {
  double sum = 0;
  for (int64_t i = 0; i < x.size(); ++i) sum += x.at(i);
  return sum;
}

const GraphFn kParts = [](GraphBuilder& g, const Values& in) { return Values{SquareParts(g, in)}; };

TEST(SquareParts, AddUpToTheSumOfAllTensors) {
  for (const DType t : {DType::kF64, DType::kF32, DType::kBF16}) {
    const std::vector<Tensor> in = {Converted(Tensor::Random(DType::kF64, {3, 50}, 1), t),
                                    Converted(Tensor::Random(DType::kF64, {kLong}, 2), t)};
    const auto out = Call(kParts, in);
    ASSERT_TRUE(out.ok()) << out.status();
    ASSERT_EQ(out->at(0).shape, Shape{kSquareParts});
    EXPECT_EQ(out->at(0).dtype, AccumulatorOf(t));
    const double want = SquaresOf(in[0]) + SquaresOf(in[1]);
    EXPECT_NEAR(SumOf(out->at(0)), want, (t == DType::kF64 ? 1e-12 : 1e-5) * want) << Name(t);
    EXPECT_TRUE(CheckThreads(kParts, in).ok());
  }
}

GraphFn Total(const std::vector<std::vector<FlatRange>>& ranges) {
  return [=](GraphBuilder& g, const Values& in) {
    std::vector<SquaredRanges> flats;
    for (size_t i = 0; i < ranges.size(); ++i) flats.push_back({in[1 + i], ranges[i]});
    return Values{TotalSquares(g, in[0], std::move(flats))};
  };
}

TEST(TotalSquares, AddsPartsAndRanges) {
  const std::vector<FlatRange> some = {{3, 5}, {64, 20'000}, {30'001, 9'000}}, none = {}, all = {{0, 100}};
  for (const DType t : {DType::kF64, DType::kF32}) {
    const std::vector<Tensor> in = {Converted(Tensor::Random(DType::kF64, {2 * kSquareParts}, 1), t),
                                    Converted(Tensor::Random(DType::kF64, {kLong}, 2), t),
                                    Converted(Tensor::Random(DType::kF64, {70}, 3), t),
                                    Converted(Tensor::Random(DType::kF64, {100}, 4), t)};
    const auto out = Call(Total({some, none, all}), in);
    ASSERT_TRUE(out.ok()) << out.status();
    double want = SumOf(in[0]) + SquaresOf(in[3]);
    for (const FlatRange& r : some) want += SquaresOf(in[1], r);
    EXPECT_EQ(out->at(0).dtype, t);
    EXPECT_NEAR(out->at(0).at(0), want, (t == DType::kF64 ? 1e-12 : 1e-5) * want) << Name(t);
  }
}

TEST(TotalSquares, TakesGradientsOfBothDTypes) {
  const std::vector<Tensor> in = {Converted(Tensor::Random(DType::kF64, {kSquareParts}, 1), DType::kF32),
                                  Converted(Tensor::Random(DType::kF64, {500}, 2), DType::kF32),
                                  Converted(Tensor::Random(DType::kF64, {500}, 3), DType::kBF16)};
  const auto out = Call(Total({{{0, 500}}, {{100, 300}}}), in);
  ASSERT_TRUE(out.ok()) << out.status();
  EXPECT_NEAR(out->at(0).at(0), SumOf(in[0]) + SquaresOf(in[1]) + SquaresOf(in[2], {100, 300}), 1e-3);
}

TEST(TotalSquares, IsNotFiniteWhereAnythingIsNot) {
  const Tensor parts = Tensor::Random(DType::kF64, {kSquareParts}, 1), flat = Tensor::Random(DType::kF64, {100}, 2);
  for (const double bad : {double{INFINITY}, std::numeric_limits<double>::quiet_NaN()}) {
    for (const int which : {0, 1}) {
      std::vector<Tensor> in = {parts, flat};
      in[which].set(7, bad);
      const auto out = Call(Total({{{0, 100}}}), in);
      ASSERT_TRUE(out.ok()) << out.status();
      EXPECT_FALSE(std::isfinite(out->at(0).at(0)));
    }
    Tensor spoiled = flat;
    spoiled.set(7, bad);
    const auto out = Call(kParts, {spoiled});
    ASSERT_TRUE(out.ok()) << out.status();
    EXPECT_FALSE(std::isfinite(SumOf(out->at(0))));
  }
}

TEST(TotalSquares, RefusesWhatDoesNotFit) {
  const TensorSpec parts{DType::kF32, {kSquareParts}}, flat{DType::kF32, {100}}, f64{DType::kF64, {100}};
  EXPECT_THAT(BuildError(Total({{{0, 101}}}), {parts, flat}).message(), HasSubstr("range 0+101 of 100"));
  EXPECT_THAT(BuildError(Total({{{0, 10}, {5, 10}}}), {parts, flat}).message(), HasSubstr("range 5+10 of 100"));
  EXPECT_THAT(BuildError(Total({{{0, 100}}}), {parts, f64}).message(), HasSubstr("another dtype"));
  EXPECT_THAT(BuildError(kParts, {flat, f64}).message(), HasSubstr("one dtype"));
}

// One product of dy by x, cut into rows of several gradients, and the squares of what it left: added up, too.
TEST(LinearDwAccSquares, IsTheProductAndTheSquaresOfTheSums) {
  const GraphFn fused = [](GraphBuilder& g, const Values& in) {
    SquaredSums s = LinearDwAccSquares(g, std::vector{in[0], in[1]}, in[2], in[3], in[4]);
    s.accs.push_back(s.squares);
    return s.accs;
  };
  const GraphFn apart = [](GraphBuilder& g, const Values& in) {
    return LinearDwAcc(g, std::vector{in[0], in[1]}, in[3], in[4], false);
  };
  const std::vector<Tensor> in = {Tensor::Random(DType::kF64, {5, 7}, 1), Tensor::Random(DType::kF64, {3, 7}, 2),
                                  Tensor::Random(DType::kF64, {kSquareParts}, 3),
                                  Tensor::Random(DType::kF64, {2, 6, 8}, 4), Tensor::Random(DType::kF64, {2, 6, 7}, 5)};
  for (const bool overwrite : {true, false}) {
    const auto one = Call(fused, in, {.overwrite = overwrite}), two = Call(apart, in, {.overwrite = overwrite});
    ASSERT_TRUE(one.ok() && two.ok()) << one.status() << two.status();
    ASSERT_EQ(one->size(), 3u);
    double want = 0;
    for (int i = 0; i < 2; ++i) {
      EXPECT_EQ(MaxAbsDiff(one->at(i), two->at(i)), 0);
      want += SquaresOf(two->at(i));
    }
    EXPECT_EQ(one->at(2).shape, Shape{kSquareParts});
    EXPECT_NEAR(SumOf(one->at(2)), want, 1e-12 * want);
  }
}

TEST(EmbeddingDwAccSquares, IsTheGradientAndItsSquares) {
  const GraphFn fused = [](GraphBuilder& g, const Values& in) {
    const SquaredSums s = EmbeddingDwAccSquares(g, in[0], in[1], in[2], in[3]);
    return Values{s.accs[0], s.squares};
  };
  const GraphFn apart = [](GraphBuilder& g, const Values& in) {
    return Values{EmbeddingDwAcc(g, in[0], in[2], in[3], false)};
  };
  const std::vector<Tensor> in = {Tensor::Random(DType::kF64, {9, 5}, 1),
                                  Tensor::Random(DType::kF64, {kSquareParts}, 2), Tensor::RandomInts({2, 6}, 0, 9, 3),
                                  Tensor::Random(DType::kF64, {2, 6, 5}, 4)};
  for (const bool overwrite : {true, false}) {
    const auto one = Call(fused, in, {.overwrite = overwrite}), two = Call(apart, in, {.overwrite = overwrite});
    ASSERT_TRUE(one.ok() && two.ok()) << one.status() << two.status();
    EXPECT_EQ(MaxAbsDiff(one->at(0), two->at(0)), 0);
    EXPECT_NEAR(SumOf(one->at(1)), SquaresOf(two->at(0)), 1e-12 * SquaresOf(two->at(0)));
  }
}

}  // namespace
}  // namespace strata::testing
