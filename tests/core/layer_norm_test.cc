#include "core/ops/layer_norm.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/graph/op.h"
#include "core/ops/move.h"
#include "tests/testing/op_checks.h"
#include "tests/testing/shard_checks.h"

namespace strata::testing {
namespace {

constexpr double kEps = 1e-5;
using Values = std::vector<Value>;

Values Norm(GraphBuilder& g, const Values& in) {
  const Value y = LayerNorm(g, in[0], in[1], in[2], kEps);
  return {y, {y.node, y.valid() ? 1 : 0}, {y.node, y.valid() ? 2 : 0}};
}
Values NormY(GraphBuilder& g, const Values& in) { return {LayerNorm(g, in[0], in[1], in[2], kEps)}; }
Values Decomposed(GraphBuilder& g, const Values& in) {
  const Value y = LayerNorm(g, in[0], in[1], in[2], kEps);
  return *g.graph().nodes[y.node].op->Decompose(g, in);
}
Value Statistic(GraphBuilder& g, Value v) { return Cast(g, v, AccumulatorOf(g.spec(v).dtype)); }
Values Dx(GraphBuilder& g, const Values& in) {
  return {LayerNormDx(g, in[0], in[1], in[2], Statistic(g, in[3]), Statistic(g, in[4]))};
}
Values Dw(GraphBuilder& g, const Values& in) {
  const LayerNormGrads d = LayerNormDw(g, in[0], in[1], Statistic(g, in[2]), Statistic(g, in[3]));
  return {d.weight_E, d.bias_E};
}

const Shape kX = {2, 6, 10};
Tensor Random(Shape shape, uint64_t seed) { return Tensor::Random(DType::kF64, shape, seed); }
const std::vector<Tensor> kIn = {Random(kX, 1), Random({10}, 2), Random({10}, 3)};

TEST(LayerNorm, Example) {
  const auto out = Call(Norm, {Tensor::Of({1, 1, 2}, {3, 7}), Tensor::Of({2}, {1, 10}), Tensor::Of({2}, {0.5, -1})});
  ASSERT_TRUE(out.ok()) << out.status();
  const double rstd = 1 / std::sqrt(4 + kEps);
  EXPECT_NEAR((*out)[0].at(0), -2 * rstd + 0.5, 1e-14);
  EXPECT_NEAR((*out)[0].at(1), 20 * rstd - 1, 1e-14);
  EXPECT_NEAR((*out)[1].at(0), 5, 1e-14);
  EXPECT_NEAR((*out)[2].at(0), rstd, 1e-14);
}

TEST(LayerNorm, Gradient) {
  for (const GraphFn& fn : {GraphFn(NormY), GraphFn(Decomposed)}) {
    const auto error = GradientError(fn, kIn);
    ASSERT_TRUE(error.ok()) << error.status();
    EXPECT_LE(*error, 1e-6);
  }
}

TEST(LayerNorm, FusedIsDecomposed) {
  const auto fused = Call(Norm, kIn), plain = Call(Decomposed, kIn);
  ASSERT_TRUE(fused.ok() && plain.ok()) << fused.status() << plain.status();
  for (int i = 0; i < 3; ++i) EXPECT_LE(MaxAbsDiff((*fused)[i], (*plain)[i]), 1e-13) << i;
}

TEST(LayerNorm, DTypes) {
  const Tensor dy = Random(kX, 4), mean = Random({2, 6, 1}, 5), rstd = Random({2, 6, 1}, 6);
  for (DType t : {DType::kF32, DType::kBF16}) {
    const auto y = DTypeError(NormY, kIn, t), dx = DTypeError(Dx, {dy, kIn[0], kIn[1], mean, rstd}, t),
               dw = DTypeError(Dw, {dy, kIn[0], mean, rstd}, t);
    ASSERT_TRUE(y.ok() && dx.ok() && dw.ok()) << y.status() << dx.status() << dw.status();
    EXPECT_LE(std::max(*y, *dx), ToleranceOf(t));
    EXPECT_LE(*dw, ToleranceOf(DType::kF32));  // f32 sums, whatever the storage
  }
}

TEST(LayerNorm, ThreadsDoNotMatter) {
  const Shape shape = {3, 111, 300};
  const Tensor x = Random(shape, 1), w = Random({300}, 2), dy = Random(shape, 4), t = Random({3, 111, 1}, 5);
  EXPECT_EQ(CheckThreads(Norm, {x, w, w}), absl::OkStatus());
  EXPECT_EQ(CheckThreads(Dx, {dy, x, w, t, t}), absl::OkStatus());
  EXPECT_EQ(CheckThreads(Dw, {dy, x, t, t}), absl::OkStatus());
}

TEST(LayerNorm, ShardRules) {
  const Tensor dy = Random(kX, 4), mean = Random({2, 6, 1}, 5), rstd = Random({2, 6, 1}, 6);
  EXPECT_EQ(CheckShardRules(Norm, kIn, 3), absl::OkStatus());
  EXPECT_EQ(CheckShardRules(Dx, {dy, kIn[0], kIn[1], mean, rstd}, 3), absl::OkStatus());
  EXPECT_EQ(CheckShardRules(Dw, {dy, kIn[0], mean, rstd}, 3), absl::OkStatus());
}

TEST(LayerNorm, RefusesABiasOfAnotherLength) {
  const TensorSpec x = {DType::kF32, kX, {}}, w = {DType::kF32, {10}, {}};
  const absl::Status s = BuildError(NormY, {x, w, {DType::kF32, {9}, {}}});
  EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument) << s;
}

}  // namespace
}  // namespace strata::testing
