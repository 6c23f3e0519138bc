#include "core/ops/move.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "tests/testing/op_checks.h"

namespace strata {
namespace {

using testing::Call;
using testing::GraphFn;
using testing::Tensor;
using ::testing::HasSubstr;
using In = const std::vector<Value>&;

struct Case {
  std::string name;
  std::vector<Shape> in;
  GraphFn fn;
};

std::vector<Case> Cases() {
  const Shape x = {4, 6, 5};
  return {
      {"split", {x}, [](GraphBuilder& g, In in) { return std::vector{SplitDim(g, in[0], 1, 3)}; }},
      {"merge", {x}, [](GraphBuilder& g, In in) { return std::vector{MergeDims(g, in[0], 1)}; }},
      {"slice0", {x}, [](GraphBuilder& g, In in) { return std::vector{Slice(g, in[0], 0, 3, 4)}; }},
      {"slice1", {x}, [](GraphBuilder& g, In in) { return std::vector{Slice(g, in[0], 1, 1, 3)}; }},
      {"pad", {x}, [](GraphBuilder& g, In in) { return std::vector{PadSlice(g, in[0], 2, 1, 3)}; }},
      {"concat0", {x, x}, [](GraphBuilder& g, In in) { return std::vector{Concat(g, {in[0], in[1]}, 0)}; }},
      {"concat2", {x, x, x}, [](GraphBuilder& g, In in) { return std::vector{Concat(g, {in[0], in[1], in[2]}, 2)}; }},
      {"concat same", {x}, [](GraphBuilder& g, In in) { return std::vector{Concat(g, {in[0], in[0]}, 1)}; }},
      {"sum0", {x}, [](GraphBuilder& g, In in) { return std::vector{ReduceSum(g, in[0], 0)}; }},
      {"sum1", {x}, [](GraphBuilder& g, In in) { return std::vector{ReduceSum(g, in[0], 1)}; }},
      {"sum2", {x}, [](GraphBuilder& g, In in) { return std::vector{ReduceSum(g, in[0], 2)}; }},
      {"sum all", {x}, [](GraphBuilder& g, In in) { return std::vector{ReduceSumAll(g, in[0])}; }},
      {"sum scalar", {{}}, [](GraphBuilder& g, In in) { return std::vector{ReduceSumAll(g, in[0])}; }},
      {"broadcast1", {{4, 5}, x}, [](GraphBuilder& g, In in) { return std::vector{Broadcast(g, in[0], in[1], 1)}; }},
      {"broadcast2", {{4, 6}, x}, [](GraphBuilder& g, In in) { return std::vector{Broadcast(g, in[0], in[1], 2)}; }},
      {"broadcast all", {{}, x}, [](GraphBuilder& g, In in) { return std::vector{BroadcastAll(g, in[0], in[1])}; }},
  };
}

std::vector<Tensor> Inputs(const std::vector<Shape>& shapes) {
  std::vector<Tensor> inputs;
  for (const Shape& s : shapes) inputs.push_back(Tensor::Random(DType::kF64, s, 10 + inputs.size()));
  return inputs;
}

Tensor Iota(const Shape& shape, DType dtype = DType::kF64) {
  std::vector<double> values(shape.elements());
  std::iota(values.begin(), values.end(), 0);
  return Tensor::Of(shape, values, dtype);
}

TEST(MoveTest, Gradients) {
  for (const Case& c : Cases()) {
    const auto error = testing::GradientError(c.fn, Inputs(c.in));
    ASSERT_TRUE(error.ok()) << c.name << ": " << error.status();
    EXPECT_LE(*error, 1e-6) << c.name;
  }
}

TEST(MoveTest, NarrowDTypes) {
  for (const Case& c : Cases()) {
    for (DType t : {DType::kF32, DType::kBF16}) {
      const auto error = testing::DTypeError(c.fn, Inputs(c.in), t);
      ASSERT_TRUE(error.ok()) << c.name << ": " << error.status();
      EXPECT_LE(*error, testing::ToleranceOf(t)) << c.name << " in " << Name(t);
    }
  }
}

TEST(MoveTest, ResultsDoNotDependOnThreads) {
  for (const Case& c : Cases()) {
    std::vector<Tensor> inputs = Inputs(c.in);
    if (c.in.size() == 1 && c.in[0].rank == 3) inputs = {Tensor::Random(DType::kF64, {4, 6, 1001}, 3)};
    const absl::Status s = testing::CheckThreads(c.fn, inputs);
    EXPECT_TRUE(s.ok()) << c.name << ": " << s;
  }
}

TEST(MoveTest, KnownValues) {
  const auto y = Call([](GraphBuilder& g, In in) {
    return std::vector{Slice(g, in[0], 1, 1, 2),    Concat(g, {in[0], in[0]}, 1), ReduceSum(g, in[0], 0),
                       ReduceSum(g, in[0], 1),      ReduceSumAll(g, in[0]),       Broadcast(g, in[1], in[0], 1),
                       PadSlice(g, in[1], 0, 1, 2), SplitDim(g, in[0], 1, 2)};
  }, {Iota({2, 4}), Tensor::Of({2}, {5, 7})});
  ASSERT_TRUE(y.ok()) << y.status();
  const std::vector<Tensor> expected = {
      Tensor::Of({2, 2}, {2, 3, 6, 7}),
      Tensor::Of({2, 8}, {0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6, 7, 4, 5, 6, 7}),
      Tensor::Of({4}, {4, 6, 8, 10}),
      Tensor::Of({2}, {6, 22}),
      Tensor::Of({}, {28}),
      Tensor::Of({2, 4}, {5, 5, 5, 5, 7, 7, 7, 7}),
      Tensor::Of({4}, {0, 0, 5, 7}),
      Iota({2, 2, 2}),
  };
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_EQ(MaxAbsDiff((*y)[i], expected[i]), 0) << i;
}

TEST(MoveTest, SlicesJoinToTheWholeInAnyDType) {
  for (DType t : {DType::kF64, DType::kF32, DType::kBF16, DType::kI64, DType::kI32, DType::kU8}) {
    const Tensor x = Iota({3, 6, 2}, t);
    const auto y = Call([](GraphBuilder& g, In in) {
      return std::vector{Concat(g, {Slice(g, in[0], 1, 0, 3), Slice(g, in[0], 1, 1, 3), Slice(g, in[0], 1, 2, 3)}, 1)};
    }, {x});
    ASSERT_TRUE(y.ok()) << y.status();
    EXPECT_EQ((*y)[0].data, x.data) << Name(t);
  }
}

TEST(MoveTest, CastRoundsToNearestEvenAndBack) {
  const Tensor x = Tensor::Of({4}, {1, 1 + 0x1p-9, 1 + 0x1p-8, 1 + 3 * 0x1p-8});
  for (DType from : {DType::kF64, DType::kF32}) {
    const auto y = Call([from](GraphBuilder& g, In in) {
      return std::vector{Cast(g, in[0], DType::kBF16), Cast(g, Cast(g, in[0], DType::kBF16), from)};
    }, {Converted(x, from)});
    ASSERT_TRUE(y.ok()) << y.status();
    EXPECT_EQ((*y)[0].dtype, DType::kBF16);
    EXPECT_EQ((*y)[1].dtype, from);
    for (const Tensor& t : *y) EXPECT_EQ(MaxAbsDiff(t, Tensor::Of({4}, {1, 1, 1, 1 + 0x1p-6})), 0);
  }
}

TEST(MoveTest, CastToTheSameDTypeIsNothing) {
  GraphBuilder g;
  const Value x = g.Input("x", {DType::kF32, {2}, {}});
  EXPECT_EQ(Cast(g, x, DType::kF32), x);
}

// What each dim of a [4, 6, 5] operand becomes when it is sharded.
TEST(MoveTest, ShardRulesFollowTheDims) {
  const std::map<std::string, std::vector<Placement>> expected = {
      {"split", {Shard(0), Shard(1), Shard(3), Partial(), Replicate()}},
      {"merge", {Shard(0), Shard(1), Partial(), Replicate()}},
      {"slice1", {Shard(0), Shard(2), Partial(), Replicate()}},
      {"concat2", {Shard(0), Shard(1), Partial(), Replicate()}},
      {"sum1", {Shard(0), Partial(), Shard(1), Partial(), Replicate()}},
      {"sum all", {Partial(), Partial(), Partial(), Partial(), Replicate()}},
      {"broadcast1", {Shard(0), Shard(1), Shard(2), Partial(), Replicate()}},
  };
  for (const Case& c : Cases()) {
    if (!expected.contains(c.name)) continue;
    GraphBuilder g;
    std::vector<Value> in;
    std::vector<TensorSpec> specs;
    for (const Shape& s : c.in) {
      specs.push_back({DType::kF32, s, {}});
      in.push_back(g.Input("in" + std::to_string(in.size()), specs.back()));
    }
    std::vector<Placement> out;
    for (const ShardRule& r : g.graph().nodes[c.fn(g, in)[0].node].op->ShardRules(specs)) {
      EXPECT_EQ(r.in.size(), c.in.size()) << c.name;
      out.push_back(r.out[0]);
    }
    EXPECT_EQ(out, expected.at(c.name)) << c.name;
  }
}

TEST(MoveTest, ErrorsNameShapesAndPlace) {
  const TensorSpec x{DType::kF32, {4, 6}, {}};
  const std::vector<std::pair<GraphFn, std::string>> wrong = {
      {[](GraphBuilder& g, In in) { return std::vector{SplitDim(g, in[0], 1, 4)}; }, "dim 1 does not divide by 4"},
      {[](GraphBuilder& g, In in) { return std::vector{MergeDims(g, in[0], 1)}; }, "has no dim 2"},
      {[](GraphBuilder& g, In in) { return std::vector{Slice(g, in[0], 0, 0, 3)}; }, "dim 0 does not divide by 3"},
      {[](GraphBuilder& g, In in) { return std::vector{Slice(g, in[0], 0, 2, 2)}; }, "no part 2 of 2"},
      {[](GraphBuilder& g, In in) { return std::vector{ReduceSum(g, in[0], -1)}; }, "no dim -1"},
      {[](GraphBuilder& g, In in) { return std::vector{Broadcast(g, in[0], in[0], 0)}; }, "operands do not fit"},
      {[](GraphBuilder& g, In in) { return std::vector{Cast(g, in[0], DType::kI32)}; }, "floating dtypes only"},
  };
  for (const auto& [fn, message] : wrong) {
    const absl::Status s = testing::BuildError(fn, {x});
    EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(s.message()), HasSubstr("move_test.cc:"));
    EXPECT_THAT(std::string(s.message()), HasSubstr(message));
  }
}

}  // namespace
}  // namespace strata
