// The oracle itself: it must notice what it is there to notice.

#include "tests/testing/interpreter.h"

#include <gtest/gtest.h>

#include <cmath>

#include "core/graph/builder.h"
#include "core/ops/elementwise.h"

namespace strata {
namespace {

using testing::Tensor;

// Runs the kernel of `add`, with a wrong gradient.
class WrongAddOp final : public Op {
 public:
  std::string_view name() const override { return "add"; }
  absl::StatusOr<std::vector<TensorSpec>> Infer(std::span<const TensorSpec> in) const override {
    return std::vector<TensorSpec>{in[0]};
  }
  absl::StatusOr<std::vector<Value>> Vjp(const VjpArgs& a) const override {
    return std::vector<Value>{a.grads[0], Scale(a.g, a.grads[0], 1.01)};
  }
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec>) const override { return {}; }
};

TEST(InterpreterTest, GradientCheckNoticesAWrongGradient) {
  const auto error = testing::GradientError(
      [](GraphBuilder& g, const std::vector<Value>& in) { return g.Add(std::make_shared<WrongAddOp>(), {in[0], in[1]}); },
      {Tensor::Random(DType::kF64, {4}, 1), Tensor::Random(DType::kF64, {4}, 2)});
  ASSERT_TRUE(error.ok()) << error.status();
  EXPECT_GT(*error, 1e-3);
}

TEST(InterpreterTest, GradientCheckNoticesAMissingGradient) {
  const auto error = testing::GradientError(
      [](GraphBuilder& g, const std::vector<Value>& in) {
        const Value acc = Accumulate(g, in[0], in[1]);  // not differentiable
        return std::vector{acc};
      },
      {Tensor::Random(DType::kF64, {4}, 1), Tensor::Random(DType::kF64, {4}, 2)});
  EXPECT_EQ(error.status().code(), absl::StatusCode::kUnimplemented) << error.status();
}

TEST(InterpreterTest, StatesThatAreViewsShareTheirStorage) {
  GraphBuilder g;
  const StateId flat = g.Declare({"flat", Role::kParam, {DType::kF64, {6}, {}}});
  const StateId view = g.Declare({"view", Role::kParam, {DType::kF64, {2, 2}, {}}, flat, 1});
  g.Update(view, Scale(g, g.Read(view), 10));
  const auto graph = std::move(g).Build();
  ASSERT_TRUE(graph.ok()) << graph.status();
  std::map<std::string, Tensor> bindings = {{"flat", Tensor::Of({6}, {1, 2, 3, 4, 5, 6})}};
  const auto values = Evaluate(*graph, bindings);
  ASSERT_TRUE(values.ok()) << values.status();
  EXPECT_EQ(MaxAbsDiff(bindings["flat"], Tensor::Of({6}, {1, 20, 30, 40, 50, 6})), 0);
}

TEST(InterpreterTest, BindingsMustFit) {
  GraphBuilder g;
  g.Output("y", Scale(g, g.Input("x", {DType::kF64, {3}, {}}), 2));
  const auto graph = std::move(g).Build();
  ASSERT_TRUE(graph.ok()) << graph.status();
  std::map<std::string, Tensor> none, wrong = {{"x", Tensor::Zeros(DType::kF64, {4})}};
  EXPECT_FALSE(Evaluate(*graph, none).ok());
  EXPECT_FALSE(Evaluate(*graph, wrong).ok());
}

TEST(InterpreterTest, DifferencesSeeNaN) {
  const Tensor a = Tensor::Of({2}, {1, NAN}), b = Tensor::Of({2}, {1, 2});
  EXPECT_EQ(MaxAbsDiff(a, b), INFINITY);
  EXPECT_EQ(MaxAbsDiff(a, a), INFINITY);
}

}  // namespace
}  // namespace strata
