#include "core/ops/rms_norm.h"

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
  const Value y = RmsNorm(g, in[0], in[1], kEps);
  return {y, {y.node, y.valid() ? 1 : 0}};
}
Values NormY(GraphBuilder& g, const Values& in) { return {RmsNorm(g, in[0], in[1], kEps)}; }
Values Decomposed(GraphBuilder& g, const Values& in) {
  const Value y = RmsNorm(g, in[0], in[1], kEps);
  return *g.graph().nodes[y.node].op->Decompose(g, in);
}
Value Rstd(GraphBuilder& g, Value v) { return Cast(g, v, AccumulatorOf(g.spec(v).dtype)); }
Values Dx(GraphBuilder& g, const Values& in) { return {RmsNormDx(g, in[0], in[1], in[2], Rstd(g, in[3]))}; }
Values Dw(GraphBuilder& g, const Values& in) { return {RmsNormDw(g, in[0], in[1], Rstd(g, in[2]))}; }

const Shape kX = {2, 6, 10};
Tensor Random(Shape shape, uint64_t seed) { return Tensor::Random(DType::kF64, shape, seed); }

TEST(RmsNorm, Example) {
  const auto out = Call(Norm, {Tensor::Of({1, 1, 2}, {3, 4}), Tensor::Of({2}, {1, 10})});
  ASSERT_TRUE(out.ok()) << out.status();
  const double rstd = 1 / std::sqrt(12.5 + kEps);
  EXPECT_NEAR((*out)[0].at(0), 3 * rstd, 1e-14);
  EXPECT_NEAR((*out)[0].at(1), 40 * rstd, 1e-14);
  EXPECT_NEAR((*out)[1].at(0), rstd, 1e-14);
}

TEST(RmsNorm, Gradient) {
  const auto error = GradientError(NormY, {Random(kX, 1), Random({10}, 2)});
  ASSERT_TRUE(error.ok()) << error.status();
  EXPECT_LE(*error, 1e-6);
}

TEST(RmsNorm, GradientOfDecomposition) {
  const auto error = GradientError(Decomposed, {Random(kX, 1), Random({10}, 2)});
  ASSERT_TRUE(error.ok()) << error.status();
  EXPECT_LE(*error, 1e-6);
}

TEST(RmsNorm, FusedIsDecomposed) {
  const std::vector<Tensor> in = {Random(kX, 1), Random({10}, 2)};
  const auto fused = Call(Norm, in), plain = Call(Decomposed, in);
  ASSERT_TRUE(fused.ok() && plain.ok()) << fused.status() << plain.status();
  for (int i = 0; i < 2; ++i) EXPECT_LE(MaxAbsDiff((*fused)[i], (*plain)[i]), 1e-13) << i;
}

TEST(RmsNorm, DTypes) {
  const Tensor x = Random(kX, 1), w = Random({10}, 2), dy = Random(kX, 3), rstd = Random({2, 6, 1}, 4);
  for (DType t : {DType::kF32, DType::kBF16}) {
    const auto y = DTypeError(Norm, {x, w}, t), dx = DTypeError(Dx, {dy, x, w, rstd}, t),
               dw = DTypeError(Dw, {dy, x, rstd}, t);
    ASSERT_TRUE(y.ok() && dx.ok() && dw.ok()) << y.status() << dx.status() << dw.status();
    EXPECT_LE(std::max({*y, *dx}), ToleranceOf(t));
    EXPECT_LE(*dw, ToleranceOf(DType::kF32));  // f32 sums of f32 products, whatever the storage
  }
}

TEST(RmsNorm, ThreadsDoNotMatter) {
  const Shape x = {3, 111, 300};
  const Tensor rstd = Random({3, 111, 1}, 4);
  EXPECT_TRUE(CheckThreads(Norm, {Random(x, 1), Random({300}, 2)}).ok());
  EXPECT_TRUE(CheckThreads(Dx, {Random(x, 3), Random(x, 1), Random({300}, 2), rstd}).ok());
  EXPECT_TRUE(CheckThreads(Dw, {Random(x, 3), Random(x, 1), rstd}).ok());
}

TEST(RmsNorm, ShardRules) {
  const Tensor x = Random(kX, 1), w = Random({10}, 2), dy = Random(kX, 3), rstd = Random({2, 6, 1}, 4);
  EXPECT_EQ(CheckShardRules(Norm, {x, w}, 3), absl::OkStatus());
  EXPECT_EQ(CheckShardRules(Dx, {dy, x, w, rstd}, 3), absl::OkStatus());
  EXPECT_EQ(CheckShardRules(Dw, {dy, x, rstd}, 3), absl::OkStatus());
}

// [B, S, H, D] with a weight of D: what [B, S H, D] gives, and each dim but the last may be sharded.
TEST(RmsNorm, OfEveryHead) {
  const Tensor x = Random({2, 6, 4, 5}, 1), w = Random({5}, 2), dy = Random({2, 6, 4, 5}, 3),
               rstd = Random({2, 6, 4, 1}, 4);
  const GraphFn merged = [](GraphBuilder& g, const Values& in) {
    return Values{SplitDim(g, RmsNorm(g, MergeDims(g, in[0], 1), in[1], kEps), 1, 4)};
  };
  const auto heads = Call(NormY, {x, w}), rows = Call(merged, {x, w}), plain = Call(Decomposed, {x, w});
  ASSERT_TRUE(heads.ok() && rows.ok() && plain.ok()) << heads.status() << rows.status() << plain.status();
  EXPECT_EQ(MaxAbsDiff((*heads)[0], (*rows)[0]), 0);
  EXPECT_LE(MaxAbsDiff((*heads)[0], (*plain)[0]), 1e-13);
  const auto error = GradientError(NormY, {x, w}), of_plain = GradientError(Decomposed, {x, w});
  ASSERT_TRUE(error.ok() && of_plain.ok()) << error.status() << of_plain.status();
  EXPECT_LE(std::max(*error, *of_plain), 1e-6);
  EXPECT_EQ(CheckShardRules(Norm, {x, w}, 4), absl::OkStatus());
  EXPECT_EQ(CheckShardRules(Dx, {dy, x, w, rstd}, 4), absl::OkStatus());
  EXPECT_EQ(CheckShardRules(Dw, {dy, x, rstd}, 4), absl::OkStatus());
  EXPECT_TRUE(CheckThreads(Dw, {dy, x, rstd}).ok());
}

TEST(RmsNorm, RefusesAWeightOfAnotherLength) {
  const absl::Status s = BuildError(NormY, {{DType::kF32, kX, {}}, {DType::kF32, {9}, {}}});
  EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument) << s;
}

}  // namespace
}  // namespace strata::testing
