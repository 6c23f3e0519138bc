#include "core/ops/bias.h"

#include <gtest/gtest.h>

#include "tests/testing/op_checks.h"
#include "tests/testing/shard_checks.h"

namespace strata::testing {
namespace {

using Values = std::vector<Value>;

Values Forward(GraphBuilder& g, const Values& in) { return {BiasAdd(g, in[0], in[1])}; }
Values Grad(GraphBuilder& g, const Values& in) { return {BiasGrad(g, in[0])}; }
Tensor Random(Shape shape, uint64_t seed) { return Tensor::Random(DType::kF64, shape, seed); }

TEST(Bias, Example) {
  const Tensor x = Tensor::Of({1, 2, 3}, {1, 2, 3, 4, 5, 6});
  const auto y = Call(Forward, {x, Tensor::Of({3}, {10, 20, 30})}), db = Call(Grad, {x});
  ASSERT_TRUE(y.ok() && db.ok()) << y.status() << db.status();
  EXPECT_EQ(MaxAbsDiff((*y)[0], Tensor::Of({1, 2, 3}, {11, 22, 33, 14, 25, 36})), 0);
  EXPECT_EQ(MaxAbsDiff((*db)[0], Tensor::Of({3}, {5, 7, 9})), 0);
}

TEST(Bias, Gradient) {
  const auto error = GradientError(Forward, {Random({2, 3, 5}, 1), Random({5}, 2)});
  ASSERT_TRUE(error.ok()) << error.status();
  EXPECT_LE(*error, 1e-6);
}

TEST(Bias, DTypesAndThreads) {
  const std::vector<Tensor> in = {Random({3, 111, 300}, 1), Random({300}, 2)};
  for (DType t : {DType::kF32, DType::kBF16}) {
    const auto y = DTypeError(Forward, in, t), db = DTypeError(Grad, {in[0]}, t);
    ASSERT_TRUE(y.ok() && db.ok()) << y.status() << db.status();
    EXPECT_LE(*y, ToleranceOf(t));
    EXPECT_LE(*db, ToleranceOf(DType::kF32));  // f32 sums, whatever the storage
  }
  EXPECT_EQ(CheckThreads(Forward, in), absl::OkStatus());
  EXPECT_EQ(CheckThreads(Grad, {in[0]}), absl::OkStatus());
}

TEST(Bias, ShardRules) {
  const std::vector<Tensor> in = {Random({2, 6, 10}, 1), Random({10}, 2)};
  EXPECT_EQ(CheckShardRules(Forward, in, 4), absl::OkStatus());
  EXPECT_EQ(CheckShardRules(Grad, {in[0]}, 5), absl::OkStatus());
}

TEST(Bias, RefusesAnotherLength) {
  const absl::Status s = BuildError(Forward, {{DType::kF32, {2, 3, 5}, {}}, {DType::kF32, {3}, {}}});
  EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument) << s;
}

}  // namespace
}  // namespace strata::testing
