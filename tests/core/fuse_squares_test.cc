// Which sums of squares of gradients are made by what writes these: hand-made graphs.

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <string>

#include "core/ops/elementwise.h"
#include "core/ops/fused.h"
#include "core/ops/optimizer.h"
#include "core/ops/squares.h"
#include "core/plan/fuse.h"

namespace strata {
namespace {

constexpr int64_t K = 4, N = 6, kWeight = N * K;

// Two weights of one product and one of another, whose gradients lie one behind the other, and a norm weight's.
struct Gradients {
  StateId flat = -1;
  Value read;  // once a step
};
using MakeSum = std::function<Value(GraphBuilder&, const Gradients&)>;

std::map<std::string, int> Fused(const MakeSum& make_sum, bool always_add = false) {
  GraphBuilder g;
  const StateId flat = g.Declare({"grads", Role::kGrad, {DType::kF64, {3 * kWeight + K}, {}}});
  const auto view = [&](const char* name, int64_t offset) {
    State s{name, Role::kGrad, {DType::kF64, {N, K}, {}}};
    s.storage = flat;
    s.storage_offset = offset;
    return g.Declare(s);
  };
  const StateId a = view("a", 0), b = view("b", kWeight), c = view("c", 2 * kWeight);
  g.set_phase(Phase::kWeightGrad);
  const Value x = g.Input("x", {DType::kF64, {2, 3, K}, {}}), dy = g.Input("dy", {DType::kF64, {2, 3, N}, {}}),
              dy2 = g.Input("dy2", {DType::kF64, {2, 3, 2 * N}, {}});
  const std::vector<Value> both = LinearDwAcc(g, std::vector{g.Read(a), g.Read(b)}, dy2, x, false);
  g.Update(a, both[0]);
  g.Update(b, both[1]);
  g.Update(c, LinearDwAcc(g, std::vector{g.Read(c)}, dy, x, always_add)[0]);
  g.set_phase(Phase::kStep);
  g.Output("norm", Sqrt(g, make_sum(g, {flat, g.Read(flat)})));
  const auto graph = std::move(g).Build();
  EXPECT_TRUE(graph.ok()) << graph.status();
  KernelTable kernels = CpuKernels();
  kernels.Add("linear_dw_acc_squares", DType::kF64, {});
  const auto mesh = Mesh::Make({}, 1, 0);
  const auto fused = FuseSquares(*graph, *mesh, kernels);
  EXPECT_TRUE(fused.ok()) << fused.status();
  std::map<std::string, int> counts;
  for (const Node& n : fused->nodes) {
    ++counts[std::string(n.op->name())];
    if (n.op->name() == "total_squares") counts["ranges: " + n.op->attributes()] = 1;
  }
  return counts;
}

TEST(FuseSquares, OfAllThatIsWrittenOnce) {
  const MakeSum all = [](GraphBuilder& g, const Gradients& grads) {
    return SumSquares(g, grads.read, {{0, kWeight}, {kWeight, kWeight}, {2 * kWeight, kWeight}, {3 * kWeight, K}});
  };
  auto ops = Fused(all);
  EXPECT_EQ(ops["linear_dw_acc_squares"], 2);
  EXPECT_EQ(ops["ranges: ranges=72+4"], 1);
  EXPECT_EQ(ops["sum_squares"], 0);
  ops = Fused(all, true);  // others have added to it before
  EXPECT_EQ(ops["linear_dw_acc_squares"], 1);
  EXPECT_EQ(ops["linear_dw_acc"], 1);
  EXPECT_EQ(ops["ranges: ranges=48+24,72+4"], 1);
}

// Of two gradients of one product, one is not counted, or only in part.
TEST(FuseSquares, NotOfWhatIsCountedInPart) {
  for (const FlatRange& second : {FlatRange{2 * kWeight, kWeight}, FlatRange{kWeight, kWeight - 1}}) {
    auto ops = Fused([&](GraphBuilder& g, const Gradients& grads) {
      return SumSquares(g, grads.read, {{0, kWeight}, second});
    });
    const bool other = second.count == kWeight;
    EXPECT_EQ(ops["linear_dw_acc_squares"], other ? 1 : 0);
    EXPECT_EQ(ops["sum_squares"], other ? 0 : 1);
    EXPECT_EQ(ops["ranges: ranges=0+24"], other ? 1 : 0);
  }
}

TEST(FuseSquares, KeepsWhatElseIsAdded) {
  auto ops = Fused([](GraphBuilder& g, const Gradients& grads) {
    const Value scaled = Add(g, grads.read, grads.read);  // no gradient as it was written
    const Value sum = Add(g, SumSquares(g, scaled, {{0, 5}}), SumSquares(g, grads.read, {{0, kWeight}}));
    return Add(g, sum, SumSquares(g, grads.read, {{kWeight, kWeight}}));
  });
  EXPECT_EQ(ops["linear_dw_acc_squares"], 1);
  EXPECT_EQ(ops["total_squares"], 1);
  EXPECT_EQ(ops["sum_squares"], 1);
  EXPECT_EQ(ops["add"], 2);  // the scaling, and of the two sums
}

// A sum that others read too is no part of another one. What is summed twice is read the second time.
TEST(FuseSquares, OfSeveralSums) {
  auto ops = Fused([](GraphBuilder& g, const Gradients& grads) {
    const Value one = SumSquares(g, grads.read, {{0, kWeight}, {kWeight, kWeight}});
    g.Output("one", one);
    return Add(g, one, SumSquares(g, grads.read, {{2 * kWeight, kWeight}}));
  });
  EXPECT_EQ(ops["linear_dw_acc_squares"], 2);
  EXPECT_EQ(ops["total_squares"], 2);
  EXPECT_EQ(ops["sum_squares"], 0);
  ops = Fused([](GraphBuilder& g, const Gradients& grads) {
    g.Output("one", SumSquares(g, grads.read, {{2 * kWeight, kWeight}}));
    return SumSquares(g, grads.read, {{0, kWeight}, {kWeight, kWeight}, {2 * kWeight, kWeight}});
  });
  EXPECT_EQ(ops["linear_dw_acc_squares"], 2);
  EXPECT_EQ(ops["total_squares"], 2);
  EXPECT_EQ(ops["ranges: ranges=48+24"], 1);
}

}  // namespace
}  // namespace strata
