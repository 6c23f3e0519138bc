#include "core/ops/elementwise.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "core/graph/autograd.h"
#include "tests/testing/op_checks.h"

namespace strata {
namespace {

using testing::Call;
using testing::CheckThreads;
using testing::GraphFn;
using ::testing::HasSubstr;
using testing::Tensor;

struct Case {
  std::string name;
  int num_in;
  GraphFn fn;
  bool differentiable = true;
};

std::vector<Case> Cases() {
  using In = const std::vector<Value>&;
  return {
      {"add", 2, [](GraphBuilder& g, In in) { return std::vector{Add(g, in[0], in[1])}; }},
      {"mul", 2, [](GraphBuilder& g, In in) { return std::vector{Mul(g, in[0], in[1])}; }},
      {"scale", 1, [](GraphBuilder& g, In in) { return std::vector{Scale(g, in[0], -1.75)}; }},
      {"identity", 1, [](GraphBuilder& g, In in) { return std::vector{Identity(g, in[0])}; }},
      {"silu", 1, [](GraphBuilder& g, In in) { return std::vector{Silu(g, in[0])}; }},
      {"swiglu", 2, [](GraphBuilder& g, In in) { return std::vector{Swiglu(g, in[0], in[1])}; }},
      {"silu_dx", 2, [](GraphBuilder& g, In in) { return std::vector{SiluDx(g, in[0], in[1])}; }, false},
      {"swiglu_dx", 3,
       [](GraphBuilder& g, In in) {
         const SwigluGrads d = SwigluDx(g, in[0], in[1], in[2]);
         return std::vector{d.gate, d.up};
       },
       false},
      {"square", 1, [](GraphBuilder& g, In in) { return std::vector{Mul(g, in[0], in[0])}; }},
  };
}

std::vector<Tensor> Inputs(int n, const Shape& shape) {
  std::vector<Tensor> inputs;
  for (int i = 0; i < n; ++i) inputs.push_back(Tensor::Random(DType::kF64, shape, 10 + i, 1.5));
  return inputs;
}

TEST(ElementwiseTest, Gradients) {
  for (const Case& c : Cases()) {
    if (!c.differentiable) continue;
    const auto error = testing::GradientError(c.fn, Inputs(c.num_in, {3, 5, 7}));
    ASSERT_TRUE(error.ok()) << c.name << ": " << error.status();
    EXPECT_LE(*error, 1e-6) << c.name;
  }
}

TEST(ElementwiseTest, NarrowDTypes) {
  for (const Case& c : Cases()) {
    for (DType t : {DType::kF32, DType::kBF16}) {
      const auto error = testing::DTypeError(c.fn, Inputs(c.num_in, {3, 5, 7}), t);
      ASSERT_TRUE(error.ok()) << c.name << ": " << error.status();
      EXPECT_LE(*error, testing::ToleranceOf(t)) << c.name << " in " << Name(t);
    }
  }
}

TEST(ElementwiseTest, ResultsDoNotDependOnThreads) {
  for (const Case& c : Cases()) {
    const absl::Status s = CheckThreads(c.fn, Inputs(c.num_in, {3, 16385}));
    EXPECT_TRUE(s.ok()) << c.name << ": " << s;
  }
}

TEST(ElementwiseTest, KnownValues) {
  const auto y = Call(
      [](GraphBuilder& g, const std::vector<Value>& in) {
        return std::vector{Silu(g, in[0]), Scale(g, in[0], 3), Swiglu(g, in[0], in[0])};
      },
      {Tensor::Of({4}, {0, 1, -200, 200})});
  ASSERT_TRUE(y.ok()) << y.status();
  const double s1 = 1 / (1 + std::exp(-1.0));
  EXPECT_LE(MaxAbsDiff((*y)[0], Tensor::Of({4}, {0, s1, 0, 200})), 1e-15);
  EXPECT_LE(MaxAbsDiff((*y)[1], Tensor::Of({4}, {0, 3, -600, 600})), 0);
  EXPECT_LE(MaxAbsDiff((*y)[2], Tensor::Of({4}, {0, s1, 0, 40000})), 1e-15);
}

// The fused ops give what their decomposition gives.
TEST(ElementwiseTest, FusedEqualsDecomposed) {
  for (const Case& c : Cases()) {
    if (c.name != "swiglu" && c.name != "swiglu_dx") continue;
    const GraphFn plain = [&c](GraphBuilder& g, const std::vector<Value>& in) {
      const NodeId node = c.fn(g, in)[0].node;
      const std::shared_ptr<const Op> op = g.graph().nodes[node].op;
      const auto out = op->Decompose(g, in);
      EXPECT_TRUE(out.ok()) << out.status();
      return *out;
    };
    const std::vector<Tensor> inputs = Inputs(c.num_in, {3, 5, 7});
    const auto fused = Call(c.fn, inputs), decomposed = Call(plain, inputs);
    ASSERT_TRUE(fused.ok() && decomposed.ok());
    ASSERT_EQ(fused->size(), decomposed->size());
    for (size_t i = 0; i < fused->size(); ++i) EXPECT_LE(MaxAbsDiff((*fused)[i], (*decomposed)[i]), 1e-14) << c.name;
  }
}

TEST(ElementwiseTest, AccumulateAddsOrOverwrites) {
  for (auto [acc, x] :
       {std::pair(DType::kF64, DType::kF64), std::pair(DType::kF32, DType::kF32), std::pair(DType::kF32, DType::kBF16),
        std::pair(DType::kBF16, DType::kF32), std::pair(DType::kBF16, DType::kBF16)}) {
    GraphBuilder g;
    const StateId state = g.Declare({"acc", Role::kGrad, {acc, {3}, {}}});
    g.Update(state, Accumulate(g, g.Read(state), g.Input("x", {x, {3}, {}})));
    const auto graph = std::move(g).Build();
    ASSERT_TRUE(graph.ok()) << graph.status();
    std::map<std::string, Tensor> bindings = {{"acc", Tensor::Of({3}, {NAN, NAN, NAN}, acc)},
                                              {"x", Tensor::Of({3}, {1, 2, 3}, x)}};
    testing::EvalOptions options;
    ASSERT_TRUE(Evaluate(*graph, bindings, options).ok());
    EXPECT_EQ(MaxAbsDiff(bindings["acc"], bindings["x"]), 0) << "the first micro-batch overwrites";
    options.overwrite = false;
    ASSERT_TRUE(Evaluate(*graph, bindings, options).ok());
    EXPECT_EQ(MaxAbsDiff(bindings["acc"], Tensor::Of({3}, {2, 4, 6})), 0);
  }
}

TEST(ElementwiseTest, Bf16AccumulatorsRoundToNearest) {
  GraphBuilder g;
  const StateId state = g.Declare({"acc", Role::kGrad, {DType::kBF16, {4}, {}}});
  g.Update(state, Accumulate(g, g.Read(state), g.Input("x", {DType::kF32, {4}, {}})));
  const auto graph = std::move(g).Build();
  ASSERT_TRUE(graph.ok()) << graph.status();
  const double ulp = std::ldexp(1, -7);
  std::map<std::string, Tensor> bindings = {
      {"acc", Tensor::Zeros(DType::kBF16, {4})},
      {"x", Tensor::Of({4}, {1 + 0.4 * ulp, 1 + 0.6 * ulp, 1 + 0.5 * ulp, 1 + 1.5 * ulp}, DType::kF32)}};
  ASSERT_TRUE(Evaluate(*graph, bindings, testing::EvalOptions{}).ok());
  EXPECT_EQ(MaxAbsDiff(bindings["acc"], Tensor::Of({4}, {1, 1 + ulp, 1, 1 + 2 * ulp})), 0);
}

TEST(ElementwiseTest, OnlyLinearOpsPassPartial) {
  const std::map<std::string, bool> passes = {{"add", true},        {"scale", true},    {"identity", true},
                                              {"mul", false},       {"silu", false},    {"swiglu", false},
                                              {"swiglu_dx", false}, {"silu_dx", false}, {"square", false}};
  for (const Case& c : Cases()) {
    GraphBuilder g;
    std::vector<Value> in;
    for (int i = 0; i < c.num_in; ++i) in.push_back(g.Input("in" + std::to_string(i), {DType::kF32, {2, 3}, {}}));
    const Node& n = g.graph().nodes[c.fn(g, in)[0].node];
    const std::vector<TensorSpec> specs(n.inputs.size(), {DType::kF32, {2, 3}, {}});
    const std::vector<ShardRule> rules = n.op->ShardRules(specs);
    EXPECT_EQ(rules.size(), passes.at(c.name) ? 4u : 3u) << c.name;  // S0, S1, R and perhaps P
    for (const ShardRule& r : rules) {
      for (const auto* side : {&r.in, &r.out}) {
        for (Placement p : *side) EXPECT_EQ(p, r.in[0]) << c.name;
      }
    }
  }
}

TEST(ElementwiseTest, ErrorsNameShapesAndPlace) {
  const absl::Status s = testing::BuildError(
      [](GraphBuilder& g, const std::vector<Value>& in) { return std::vector{Add(g, in[0], in[1])}; },
      {{DType::kF32, {2, 3}, {}}, {DType::kF32, {3, 2}, {}}});
  EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(s.message()), HasSubstr("elementwise_test.cc:"));
  EXPECT_THAT(std::string(s.message()), HasSubstr("f32[2, 3] f32[3, 2]"));
  for (const DType acc : {DType::kF32, DType::kBF16}) {
    EXPECT_FALSE(
        testing::BuildError(
            [](GraphBuilder& g, const std::vector<Value>& in) { return std::vector{Accumulate(g, in[0], in[1])}; },
            {{acc, {2}, {}}, {DType::kF64, {2}, {}}})
            .ok());
  }
}

}  // namespace
}  // namespace strata
