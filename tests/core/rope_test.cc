#include "core/ops/rope.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/testing/op_checks.h"
#include "tests/testing/shard_checks.h"

namespace strata::testing {
namespace {

using Values = std::vector<Value>;
constexpr double kTheta = 100;
const Shape kX = {2, 6, 4, 8};

Values Forward(GraphBuilder& g, const Values& in) { return {Rope(g, in[0], in[1], kTheta)}; }
Values Inverse(GraphBuilder& g, const Values& in) { return {Rope(g, in[0], in[1], kTheta, RopeDirection::kInverse)}; }
Values There(GraphBuilder& g, const Values& in) { return Inverse(g, {Forward(g, in)[0], in[1]}); }

Tensor X() { return Tensor::Random(DType::kF64, kX, 1); }
Tensor Positions() { return Tensor::Of({6}, {5, 0, 3, 11, 2, 70000}, DType::kI32); }

TEST(Rope, RotatesThePairsOfTheTwoHalves) {
  const Tensor x = X(), positions = Positions();
  const auto out = Call(Forward, {x, positions});
  ASSERT_TRUE(out.ok()) << out.status();
  for (int64_t row = 0; row < 2 * 6 * 4; ++row) {
    for (int64_t i = 0; i < 4; ++i) {
      const double angle = positions.at(row / 4 % 6) * std::pow(kTheta, -2.0 * i / 8);
      const double u = x.at(row * 8 + i), v = x.at(row * 8 + i + 4);
      ASSERT_NEAR((*out)[0].at(row * 8 + i), u * std::cos(angle) - v * std::sin(angle), 1e-12);
      ASSERT_NEAR((*out)[0].at(row * 8 + i + 4), v * std::cos(angle) + u * std::sin(angle), 1e-12);
    }
  }
}

TEST(Rope, InverseUndoesIt) {
  const auto out = Call(There, {X(), Positions()});
  ASSERT_TRUE(out.ok()) << out.status();
  EXPECT_LE(MaxAbsDiff((*out)[0], X()), 1e-14);
}

TEST(Rope, Gradient) {
  for (const GraphFn& fn : {GraphFn(Forward), GraphFn(Inverse)}) {
    const auto error = GradientError(fn, {X(), Positions()});
    ASSERT_TRUE(error.ok()) << error.status();
    EXPECT_LE(*error, 1e-6);
  }
}

TEST(Rope, DTypesThreadsAndRules) {
  for (DType t : {DType::kF32, DType::kBF16}) {
    const auto error = DTypeError(Forward, {X(), Positions()}, t);
    ASSERT_TRUE(error.ok()) << error.status();
    EXPECT_LE(*error, ToleranceOf(t));
  }
  EXPECT_EQ(CheckThreads(Forward, {X(), Positions()}), absl::OkStatus());
  EXPECT_EQ(CheckShardRules(Forward, {X(), Positions()}, 5), absl::OkStatus());
}

TEST(Rope, PositionsMayDifferBetweenRows) {
  const Tensor x = X();
  const Tensor by_row = Tensor::Of({2, 6}, {5, 0, 3, 11, 2, 70000, 0, 1, 2, 0, 1, 0}, DType::kI32);
  const auto both = Call(Forward, {x, by_row});
  ASSERT_TRUE(both.ok()) << both.status();
  const int64_t row = x.size() / 2;
  for (int64_t b = 0; b < 2; ++b) {
    Tensor positions = Tensor::Zeros(DType::kI32, {6});
    for (int64_t s = 0; s < 6; ++s) positions.set(s, by_row.at(b * 6 + s));
    const auto one = Call(Forward, {x, positions});
    ASSERT_TRUE(one.ok()) << one.status();
    for (int64_t i = b * row; i < (b + 1) * row; ++i) ASSERT_EQ((*both)[0].at(i), (*one)[0].at(i));
  }
  const auto error = GradientError(Forward, {x, by_row});
  ASSERT_TRUE(error.ok()) << error.status();
  EXPECT_LE(*error, 1e-6);
  EXPECT_EQ(CheckThreads(Forward, {x, by_row}), absl::OkStatus());
  EXPECT_EQ(CheckShardRules(Forward, {x, by_row}, 5), absl::OkStatus());
}

// Llama 3.1's scaling: of the frequencies 1, 0.316, 0.1 and 0.0316 (waves of 6, 20, 63 and 199 tokens) over 32 tokens the
// first is kept, the second blended, and the last two are an eighth of what they were.
TEST(Rope, ScalesLowFrequencies) {
  const RopeScaling scaling{.factor = 8, .low = 1, .high = 4, .original = 32};
  const double blended = std::pow(kTheta, -0.25), turns = 32 * blended / (2 * std::acos(-1.0)),
               smooth = (turns - 1) / 3;
  ASSERT_TRUE(0 < smooth && smooth < 1);
  const double expected[] = {1, (1 - smooth) * blended / 8 + smooth * blended, 0.1 / 8, std::pow(kTheta, -0.75) / 8};
  for (int i = 0; i < 4; ++i) {
    EXPECT_NEAR(ScaledFrequency(scaling, std::pow(kTheta, -2.0 * i / 8)), expected[i], 1e-15) << i;
    EXPECT_EQ(ScaledFrequency({}, expected[i]), expected[i]);
  }
  const GraphFn scaled = [&](GraphBuilder& g, const Values& in) {
    return Values{Rope(g, in[0], in[1], RopeAttributes{.theta = kTheta, .scaling = scaling})};
  };
  const Tensor x = X(), positions = Positions();
  const auto out = Call(scaled, {x, positions});
  ASSERT_TRUE(out.ok()) << out.status();
  for (int64_t row = 0; row < 2 * 6 * 4; ++row) {
    for (int64_t i = 0; i < 4; ++i) {
      const double angle = positions.at(row / 4 % 6) * expected[i];
      const double u = x.at(row * 8 + i), v = x.at(row * 8 + i + 4);
      ASSERT_NEAR((*out)[0].at(row * 8 + i), u * std::cos(angle) - v * std::sin(angle), 1e-10);
      ASSERT_NEAR((*out)[0].at(row * 8 + i + 4), v * std::cos(angle) + u * std::sin(angle), 1e-10);
    }
  }
  const auto error = GradientError(scaled, {x, positions});
  ASSERT_TRUE(error.ok()) << error.status();
  EXPECT_LE(*error, 1e-6);
}

TEST(Rope, RefusesAnOddHead) {
  const absl::Status s = BuildError(Forward, {{DType::kF32, {1, 2, 1, 3}, {}}, {DType::kI32, {2}, {}}});
  EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument) << s;
}

}  // namespace
}  // namespace strata::testing
