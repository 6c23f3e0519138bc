#include "core/ops/head_loss.h"

#include <gtest/gtest.h>

#include "core/graph/autograd.h"
#include "core/graph/op.h"
#include "core/ops/bias.h"
#include "core/ops/cross_entropy.h"
#include "core/ops/linear.h"
#include "tests/testing/op_checks.h"

namespace strata::testing {
namespace {

constexpr int64_t B = 2, S = 8, E = 6, V = 10;

struct Inputs {
  Value x, w, bias, targets, weights, seed;
};
Inputs Declare(GraphBuilder& g, DType t) {
  const DType accumulator = AccumulatorOf(t);
  return {g.Input("x", {t, {B, S, E}, {}}),
          g.Input("w", {t, {V, E}, {}}),
          g.Input("bias", {t, {V}, {}}),
          g.Input("targets", {DType::kI32, {B, S}, {}}),
          g.Input("weights", {accumulator, {B, S}, {}}),
          g.Input("seed", {accumulator, {}, {}})};
}
std::map<std::string, Tensor> Bindings(DType t) {
  const DType accumulator = AccumulatorOf(t);
  return {{"x", Tensor::Random(t, {B, S, E}, 1)},
          {"w", Tensor::Random(t, {V, E}, 2)},
          {"bias", Tensor::Random(t, {V}, 5)},
          {"targets", Tensor::RandomInts({B, S}, -2, V, 3)},
          {"weights", Tensor::Random(accumulator, {B, S}, 4)},
          {"seed", Tensor::Of({}, {0.25}, accumulator)}};
}

struct Result {
  Tensor loss, dx, dw, dbias;  // dbias: of a loss with a bias
};
using LossFn = std::function<Value(GraphBuilder&, const Inputs&)>;
absl::StatusOr<Graph> LossGraph(const LossFn& loss, DType t, bool differentiate) {
  GraphBuilder g;
  const Inputs in = Declare(g, t);
  const Value v = loss(g, in);
  g.Output("loss", v);
  absl::StatusOr<Graph> graph = std::move(g).Build();
  if (graph.ok() && differentiate) graph = Differentiate(*graph, v, in.seed, std::vector{in.x, in.w, in.bias});
  if (!graph.ok()) return graph;
  return DecomposeOps(*graph, [](const Op& op) { return op.name() == "head_loss"; });
}
absl::StatusOr<Result> RunLoss(const LossFn& loss, DType t) {
  const absl::StatusOr<Graph> graph = LossGraph(loss, t, true);
  if (!graph.ok()) return graph.status();
  std::map<std::string, Tensor> bindings = Bindings(t);
  const auto values = Evaluate(*graph, bindings);
  if (!values.ok()) return values.status();
  const auto output = [&](const char* name) {
    const auto it = graph->outputs.find(name);
    return it == graph->outputs.end() ? Tensor{} : (*values)[it->second.node][it->second.output];
  };
  return Result{output("loss"), output("grad.0"), output("grad.1"), output("grad.2")};
}

Value Plain(GraphBuilder& g, const Inputs& in) {
  const Value z = Linear(g, in.x, in.w), m = VocabMax(g, z);
  return Nll(g, m, VocabSumExp(g, z, m), VocabPick(g, z, in.targets), in.weights);
}
LossFn Chunked(int chunks) {
  return [chunks](GraphBuilder& g, const Inputs& in) {
    return HeadLoss(g, in.x, in.w, {}, in.targets, in.weights, in.seed, chunks);
  };
}

TEST(HeadLoss, ChunksAreThePlainLoss) {
  const absl::StatusOr<Result> plain = RunLoss(Plain, DType::kF64);
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_GT(MaxAbs(plain->dx), 0.01);
  for (int chunks : {1, 2, 4}) {
    const absl::StatusOr<Result> chunked = RunLoss(Chunked(chunks), DType::kF64);
    ASSERT_TRUE(chunked.ok()) << chunked.status();
    EXPECT_NEAR(chunked->loss.at(0), plain->loss.at(0), 1e-12) << chunks;
    EXPECT_LE(MaxAbsDiff(chunked->dx, plain->dx), 1e-14) << chunks;
    EXPECT_LE(MaxAbsDiff(chunked->dw, plain->dw), 1e-14) << chunks;
  }
}

TEST(HeadLoss, ABiasIsThatOfThePlainLoss) {
  const LossFn plain_loss = [](GraphBuilder& g, const Inputs& in) {
    const Value z = BiasAdd(g, Linear(g, in.x, in.w), in.bias), m = VocabMax(g, z);
    return Nll(g, m, VocabSumExp(g, z, m), VocabPick(g, z, in.targets), in.weights);
  };
  const absl::StatusOr<Result> plain = RunLoss(plain_loss, DType::kF64);
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_GT(MaxAbs(plain->dbias), 0.01);
  for (int chunks : {1, 4}) {
    const LossFn loss = [chunks](GraphBuilder& g, const Inputs& in) {
      return HeadLoss(g, in.x, in.w, in.bias, in.targets, in.weights, in.seed, chunks);
    };
    const absl::StatusOr<Result> chunked = RunLoss(loss, DType::kF64);
    ASSERT_TRUE(chunked.ok()) << chunked.status();
    EXPECT_NEAR(chunked->loss.at(0), plain->loss.at(0), 1e-12) << chunks;
    EXPECT_LE(MaxAbsDiff(chunked->dx, plain->dx), 1e-14) << chunks;
    EXPECT_LE(MaxAbsDiff(chunked->dw, plain->dw), 1e-14) << chunks;
    EXPECT_LE(MaxAbsDiff(chunked->dbias, plain->dbias), 1e-14) << chunks;
  }
}

TEST(HeadLoss, DTypes) {
  for (DType t : {DType::kF32, DType::kBF16}) {
    const absl::StatusOr<Result> got = RunLoss(Chunked(2), t), exact = RunLoss(Chunked(2), DType::kF64);
    ASSERT_TRUE(got.ok() && exact.ok()) << got.status() << exact.status();
    EXPECT_EQ(got->dx.dtype, t);
    EXPECT_EQ(got->dw.dtype, DType::kF32);
    const double tolerance = t == DType::kF32 ? 1e-5 : 0.05;  // bf16: x and w are rounded too
    EXPECT_LE(MaxAbsDiff(got->dx, exact->dx), tolerance);
    EXPECT_LE(MaxAbsDiff(got->dw, exact->dw), tolerance);
    EXPECT_NEAR(got->loss.at(0), exact->loss.at(0), 4 * tolerance);
  }
}

TEST(HeadLoss, WithoutBackwardThereAreNoGradients) {
  const absl::StatusOr<Graph> graph = LossGraph(Chunked(2), DType::kF32, false);
  ASSERT_TRUE(graph.ok()) << graph.status();
  int linears = 0;
  for (const Node& n : graph->nodes) {
    linears += n.op->name() == "linear" ? 1 : 0;
    EXPECT_NE(n.op->name(), "softmax_grad");
    EXPECT_NE(n.op->name(), "linear_dw");
  }
  EXPECT_EQ(linears, 2);
}

TEST(HeadLoss, GradientsAreForward) {
  const absl::StatusOr<Graph> graph = LossGraph(Chunked(4), DType::kF32, true);
  ASSERT_TRUE(graph.ok()) << graph.status();
  for (const Node& n : graph->nodes) EXPECT_EQ(n.phase, Phase::kForward) << n.op->name();
}

TEST(HeadLoss, RefusesAnotherCotangent) {
  GraphBuilder g;
  const Inputs in = Declare(g, DType::kF32);
  const Value other = g.Input("other", {DType::kF32, {}, {}});
  const Value loss = Chunked(2)(g, in);
  const absl::StatusOr<Graph> graph = std::move(g).Build();
  ASSERT_TRUE(graph.ok()) << graph.status();
  EXPECT_EQ(Differentiate(*graph, loss, other, std::vector{in.x}).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(HeadLoss, RefusesUnequalChunks) {
  EXPECT_EQ(LossGraph(Chunked(3), DType::kF32, false).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace strata::testing
