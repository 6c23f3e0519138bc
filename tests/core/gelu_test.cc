#include "core/ops/gelu.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/testing/op_checks.h"
#include "tests/testing/shard_checks.h"

namespace strata::testing {
namespace {

using Values = std::vector<Value>;

template <GeluKind kKind>
Values Forward(GraphBuilder& g, const Values& in) {
  return {Gelu(g, in[0], kKind)};
}
template <GeluKind kKind>
Values Dx(GraphBuilder& g, const Values& in) {
  return {GeluDx(g, in[0], in[1], kKind)};
}
Tensor Random(Shape shape, uint64_t seed) { return Tensor::Random(DType::kF64, shape, seed, 3.0); }

double Erf(double x) { return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0))); }
double Tanh(double x) { return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); }

template <GeluKind kKind>
void Check(double (*formula)(double)) {
  const Tensor x = Random({3, 7, 331}, 1), dy = Random({3, 7, 331}, 2);
  const auto y = Call(Forward<kKind>, {x});
  ASSERT_TRUE(y.ok()) << y.status();
  for (int64_t i = 0; i < x.size(); ++i) ASSERT_NEAR((*y)[0].at(i), formula(x.at(i)), 1e-14) << x.at(i);
  const auto error = GradientError(Forward<kKind>, {x}, 400);
  ASSERT_TRUE(error.ok()) << error.status();
  EXPECT_LE(*error, 1e-6);
  for (DType t : {DType::kF32, DType::kBF16}) {
    const auto forward = DTypeError(Forward<kKind>, {x}, t), dx = DTypeError(Dx<kKind>, {dy, x}, t);
    ASSERT_TRUE(forward.ok() && dx.ok()) << forward.status() << dx.status();
    EXPECT_LE(std::max(*forward, *dx), ToleranceOf(t));
  }
  const Tensor large = Random({3, 111, 300}, 1);
  EXPECT_EQ(CheckThreads(Forward<kKind>, {large}), absl::OkStatus());
  EXPECT_EQ(CheckThreads(Dx<kKind>, {large, large}), absl::OkStatus());
  const Tensor small = Random({2, 4, 6}, 1);
  EXPECT_EQ(CheckShardRules(Forward<kKind>, {small}, 4), absl::OkStatus());
  EXPECT_EQ(CheckShardRules(Dx<kKind>, {small, small}, 4), absl::OkStatus());
}

TEST(Gelu, Erf) { Check<GeluKind::kErf>(Erf); }
TEST(Gelu, Tanh) { Check<GeluKind::kTanh>(Tanh); }

TEST(Gelu, LargeArgumentsAreTheLimits) {
  const Tensor x = Tensor::Of({4}, {-1e4, -40, 40, 1e4});
  for (const GraphFn& fn : {GraphFn(Forward<GeluKind::kErf>), GraphFn(Forward<GeluKind::kTanh>)}) {
    for (DType t : {DType::kF64, DType::kF32}) {
      const auto y = Call(fn, {Converted(x, t)});
      ASSERT_TRUE(y.ok()) << y.status();
      EXPECT_EQ(MaxAbsDiff((*y)[0], Converted(Tensor::Of({4}, {0, 0, 40, 1e4}), t)), 0);
    }
  }
}

}  // namespace
}  // namespace strata::testing
