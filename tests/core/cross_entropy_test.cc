#include "core/ops/cross_entropy.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/graph/autograd.h"
#include "core/graph/op.h"
#include "core/ops/elementwise.h"
#include "core/ops/move.h"
#include "core/ops/rms_norm.h"
#include "tests/testing/op_checks.h"
#include "tests/testing/shard_checks.h"

namespace strata::testing {
namespace {

using Values = std::vector<Value>;

// Token operands arrive in the dtype of z; the ops want its accumulator dtype.
Value Acc(GraphBuilder& g, Value v) { return Cast(g, v, AccumulatorOf(g.spec(v).dtype)); }

Values Max(GraphBuilder& g, const Values& in) { return {VocabMax(g, in[0])}; }
Values SumExp(GraphBuilder& g, const Values& in) { return {VocabSumExp(g, in[0], Acc(g, in[1]))}; }
Values Pick(GraphBuilder& g, const Values& in) { return {VocabPick(g, in[0], in[1])}; }
Values SumExpDx(GraphBuilder& g, const Values& in) { return {VocabSumExpDx(g, in[0], Acc(g, in[1]), Acc(g, in[2]))}; }
Values PickDx(GraphBuilder& g, const Values& in) { return {VocabPickDx(g, in[0], in[1], Acc(g, in[2]))}; }
Values NllOf(GraphBuilder& g, const Values& in) { return {Nll(g, in[0], in[1], in[2], in[3])}; }
Values NllDxOf(GraphBuilder& g, const Values& in) {
  const NllGradients d = NllDx(g, in[0], in[1], in[2]);
  return {d.ds_BS, d.dp_BS};
}
Values Grad(GraphBuilder& g, const Values& in) {
  return {SoftmaxGrad(g, in[0], Acc(g, in[1]), Acc(g, in[2]), in[3], Acc(g, in[4]), Acc(g, in[5]))};
}
Values DecomposedGrad(GraphBuilder& g, const Values& in) {
  return *g.graph().nodes[Grad(g, in)[0].node].op->Decompose(g, in);
}
Value PlainLoss(GraphBuilder& g, Value z, Value targets, Value weights) {
  const Value m = VocabMax(g, z);
  return Nll(g, m, VocabSumExp(g, z, m), VocabPick(g, z, targets), weights);
}

struct Case {
  Tensor z, targets, weights, seed, m, s;
  double loss = 0;
};
// Naive in float64. The last token is ignored: no target, weight 0.
Case MakeCase(int64_t B, int64_t S, int64_t V) {
  const Shape bs = {B, S};
  Case c = {Tensor::Random(DType::kF64, {B, S, V}, 1, 3),
            Tensor::RandomInts(bs, 0, V, 2),
            Tensor::Random(DType::kF64, bs, 3),
            Tensor::Of({}, {0.3}),
            Tensor::Zeros(DType::kF64, bs),
            Tensor::Zeros(DType::kF64, bs)};
  c.targets.set(0, V - 1);
  c.targets.set(B * S - 1, -100);
  c.weights.set(B * S - 1, 0);
  for (int64_t t = 0; t < B * S; ++t) {
    double m = -INFINITY, s = 0;
    for (int64_t v = 0; v < V; ++v) m = std::max(m, c.z.at(t * V + v));
    for (int64_t v = 0; v < V; ++v) s += std::exp(c.z.at(t * V + v) - m);
    c.m.set(t, m);
    c.s.set(t, s);
    if (c.weights.at(t) != 0)
      c.loss += c.weights.at(t) * (m + std::log(s) - c.z.at(t * V + static_cast<int64_t>(c.targets.at(t))));
  }
  return c;
}

TEST(CrossEntropy, LossOfThePieces) {
  const Case c = MakeCase(2, 3, 1300);
  const auto out = Call(
      [](GraphBuilder& g, const Values& in) {
        return Values{VocabMax(g, in[0]), PlainLoss(g, in[0], in[1], in[2])};
      },
      {c.z, c.targets, c.weights});
  ASSERT_TRUE(out.ok()) << out.status();
  EXPECT_EQ((*out)[0].data, c.m.data);
  EXPECT_NEAR((*out)[1].at(0), c.loss, 1e-12 * std::abs(c.loss));
}

// Weights that finite differences cannot move: made of integer masks.
TEST(CrossEntropy, GradientOfThePlainLoss) {
  const Case c = MakeCase(2, 3, 7);
  const auto loss = [](GraphBuilder& g, const Values& in) {
    const Value ones = Rsqrt(g, Scale(g, in[0], 0), 1);
    const Value weights = Add(g, Scale(g, VocabPick(g, ones, in[1]), 0.7), Scale(g, VocabPick(g, ones, in[2]), 0.5));
    return Values{PlainLoss(g, in[0], in[1], weights)};
  };
  const auto error = GradientError(loss, {c.z, c.targets, Tensor::Of({2, 3}, {0, -1, 0, 0, -1, -1}, DType::kI32)});
  ASSERT_TRUE(error.ok()) << error.status();
  EXPECT_LE(*error, 1e-6);
}

TEST(CrossEntropy, GradientsOfThePieces) {
  const Case c = MakeCase(2, 3, 7);
  const auto sum_exp_of_zero_shift = [](GraphBuilder& g, const Values& in) {
    return Values{VocabSumExp(g, in[0], Scale(g, VocabMax(g, in[0]), 0))};
  };
  const auto sum = GradientError(sum_exp_of_zero_shift, {Tensor::Random(DType::kF64, {2, 3, 7}, 1)});
  const auto pick = GradientError(Pick, {c.z, c.targets});
  ASSERT_TRUE(sum.ok() && pick.ok()) << sum.status() << pick.status();
  EXPECT_LE(std::max(*sum, *pick), 1e-6);
}

TEST(CrossEntropy, FusedGradientIsDecomposed) {
  const Case c = MakeCase(2, 3, 1300);
  const std::vector<Tensor> in = {c.z, c.m, c.s, c.targets, c.weights, c.seed};
  const auto fused = Call(Grad, in), plain = Call(DecomposedGrad, in);
  ASSERT_TRUE(fused.ok() && plain.ok()) << fused.status() << plain.status();
  EXPECT_GT(MaxAbs((*fused)[0]), 0.1);
  EXPECT_LE(MaxAbsDiff((*fused)[0], (*plain)[0]), 1e-14);
}

TEST(CrossEntropy, FusedGradientIsTheGradientOfThePlainLoss) {
  const Case c = MakeCase(2, 3, 7);
  GraphBuilder g;
  const Value z = g.Input("z", {DType::kF64, c.z.shape, {}}), targets = g.Input("targets", {DType::kI32, {2, 3}, {}});
  const Value weights = g.Input("weights", {DType::kF64, {2, 3}, {}}), seed = g.Input("seed", {DType::kF64, {}, {}});
  const Value loss = PlainLoss(g, z, targets, weights);
  const absl::StatusOr<Graph> forward = std::move(g).Build();
  ASSERT_TRUE(forward.ok()) << forward.status();
  const absl::StatusOr<Graph> graph = Differentiate(*forward, loss, seed, std::vector{z});
  ASSERT_TRUE(graph.ok()) << graph.status();
  std::map<std::string, Tensor> bindings = {
      {"z", c.z}, {"targets", c.targets}, {"weights", c.weights}, {"seed", c.seed}};
  const auto values = Evaluate(*graph, bindings);
  const auto fused = Call(Grad, {c.z, c.m, c.s, c.targets, c.weights, c.seed});
  ASSERT_TRUE(values.ok() && fused.ok()) << values.status() << fused.status();
  const Value dz = graph->outputs.at("grad.0");
  EXPECT_LE(MaxAbsDiff((*values)[dz.node][dz.output], (*fused)[0]), 1e-14);
}

TEST(CrossEntropy, ShardRules) {
  const Case c = MakeCase(2, 4, 8);
  const Tensor &z = c.z, &t = c.targets, &w = c.weights;
  EXPECT_EQ(CheckShardRules(Max, {z}, 4), absl::OkStatus());
  EXPECT_EQ(CheckShardRules(SumExp, {z, c.m}, 4), absl::OkStatus());
  EXPECT_EQ(CheckShardRules(Pick, {z, t}, 4), absl::OkStatus());
  EXPECT_EQ(CheckShardRules(SumExpDx, {z, c.m, w}, 4), absl::OkStatus());
  EXPECT_EQ(CheckShardRules(PickDx, {z, t, w}, 4), absl::OkStatus());
  EXPECT_EQ(CheckShardRules(NllOf, {c.m, c.s, w, w}, 3), absl::OkStatus());
  EXPECT_EQ(CheckShardRules(NllDxOf, {c.s, w, c.seed}, 3), absl::OkStatus());
  EXPECT_EQ(CheckShardRules(Grad, {z, c.m, c.s, t, w, c.seed}, 4), absl::OkStatus());
}

TEST(CrossEntropy, DTypesAndThreads) {
  const Case c = MakeCase(2, 3, 1300);
  const std::vector<std::pair<GraphFn, std::vector<Tensor>>> calls = {
      {Max, {c.z}},
      {Pick, {c.z, c.targets}},
      {SumExp, {c.z, c.m}},
      {SumExpDx, {c.z, c.m, c.weights}},
      {PickDx, {c.z, c.targets, c.weights}},
      {Grad, {c.z, c.m, c.s, c.targets, c.weights, c.seed}},
  };
  for (size_t i = 0; i < calls.size(); ++i) {
    for (DType t : {DType::kF32, DType::kBF16}) {
      const auto error = DTypeError(calls[i].first, calls[i].second, t);
      ASSERT_TRUE(error.ok()) << i << error.status();
      EXPECT_LE(*error, ToleranceOf(t)) << i << Name(t);
    }
    EXPECT_EQ(CheckThreads(calls[i].first, calls[i].second), absl::OkStatus()) << i;
  }
  const auto nll = DTypeError(NllOf, {c.m, c.s, c.weights, c.weights}, DType::kF32);
  const auto nll_dx = DTypeError(NllDxOf, {c.s, c.weights, c.seed}, DType::kF32);
  ASSERT_TRUE(nll.ok() && nll_dx.ok()) << nll.status() << nll_dx.status();
  EXPECT_LE(std::max(*nll, *nll_dx), ToleranceOf(DType::kF32));
}

TEST(CrossEntropy, RefusesBf16Sums) {
  const absl::Status s =
      BuildError([](GraphBuilder& g, const Values& in) { return Values{VocabSumExp(g, in[0], in[1])}; },
                 {{DType::kBF16, {2, 3, 7}, {}}, {DType::kBF16, {2, 3}, {}}});
  EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument) << s;
}

}  // namespace
}  // namespace strata::testing
