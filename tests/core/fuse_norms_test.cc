// When the kernel that makes a norm's gradients adds them to their accumulators, and that the numbers stay.

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "core/graph/autograd.h"
#include "core/ops/bias.h"
#include "core/ops/elementwise.h"
#include "core/ops/layer_norm.h"
#include "core/ops/rms_norm.h"
#include "core/plan/fuse.h"
#include "tests/testing/fused_graph.h"

namespace strata {
namespace {

using testing::Tensor;

constexpr int64_t kWidth = 6;
const Shape kRows = {2, 3, kWidth};

Value Added(GraphBuilder& g, const char* name, Value sum) {
  const StateId state = g.Declare({name, Role::kGrad, {DType::kF64, {kWidth}, {}}});
  const Value total = Accumulate(g, g.Read(state), sum);
  g.Update(state, total);
  return total;
}

enum class Sums { kAdded, kOneApart, kReadTwice };

// The gradients of a norm of x, which has another reader; of layer norm also that of a bias that was added to x.
Graph RmsNormGraph(Sums sums) {
  GraphBuilder g;
  const Value x = g.Input("x", {DType::kF64, kRows, {}}), dy = g.Input("dy", {DType::kF64, kRows, {}});
  const Value r = g.Input("r", {DType::kF64, kRows, {}}), w = g.Input("w", {DType::kF64, {kWidth}, {}});
  const Value y = RmsNorm(g, x, w, 1e-5), rstd{y.node, 1};
  g.Output("dx", Add(g, RmsNormDx(g, dy, x, w, rstd), r));
  const Value dw = RmsNormDw(g, dy, x, rstd);
  g.Output("dw", sums == Sums::kOneApart ? dw : Added(g, "sum", dw));
  if (sums == Sums::kReadTwice) g.Output("more", Scale(g, dw, 2));
  auto graph = std::move(g).Build();
  EXPECT_TRUE(graph.ok()) << graph.status();
  return *std::move(graph);
}

Graph LayerNormGraph(Sums sums) {
  GraphBuilder g;
  const Value x = g.Input("x", {DType::kF64, kRows, {}}), dy = g.Input("dy", {DType::kF64, kRows, {}});
  const Value r = g.Input("r", {DType::kF64, kRows, {}}), w = g.Input("w", {DType::kF64, {kWidth}, {}});
  const Value y = LayerNorm(g, x, w, w, 1e-5), mean{y.node, 1}, rstd{y.node, 2};
  const Value dx = Add(g, LayerNormDx(g, dy, x, w, mean, rstd), r);
  const LayerNormGrads d = LayerNormDw(g, dy, x, mean, rstd);
  g.Output("dx", dx);
  g.Output("dw", Added(g, "sum", d.weight_E));
  g.Output("db", sums == Sums::kOneApart ? d.bias_E : Added(g, "sum of b", d.bias_E));
  g.Output("dc", Added(g, "sum of c", BiasGrad(g, dx)));
  if (sums == Sums::kReadTwice) g.Output("more", Scale(g, d.bias_E, 2));
  auto graph = std::move(g).Build();
  EXPECT_TRUE(graph.ok()) << graph.status();
  return *std::move(graph);
}

// The ops after fusion where there are kernels of these too, which gives the same numbers.
std::map<std::string, int> Fused(const Graph& plain, std::initializer_list<const char*> fused_ops) {
  KernelTable kernels = CpuKernels();
  for (const char* op : fused_ops) kernels.Add(op, DType::kF64, {});
  const auto mesh = Mesh::Make({}, 1, 0);
  EXPECT_TRUE(mesh.ok()) << mesh.status();
  const auto fused = FuseOps(plain, *mesh, kernels);
  EXPECT_TRUE(fused.ok()) << fused.status();
  std::map<std::string, Tensor> bindings;
  uint64_t seed = 0;
  for (const char* name : {"x", "dy", "r"}) bindings[name] = Tensor::Random(DType::kF64, kRows, ++seed);
  for (const char* name : {"w", "sum", "sum of b", "sum of c"}) {
    bindings[name] = Tensor::Random(DType::kF64, {kWidth}, ++seed);
  }
  const auto want = testing::OutputsOf(plain, bindings), got = testing::OutputsOf(*fused, bindings);
  for (const auto& [name, t] : want) {
    for (int64_t i = 0; i < t.size(); ++i) EXPECT_NEAR(got.at(name).at(i), t.at(i), 1e-12) << name << " " << i;
  }
  return testing::OpCounts(*fused);
}

TEST(FuseNorms, GradientOfTheWeightIsAddedInPlace) {
  auto ops = Fused(RmsNormGraph(Sums::kAdded), {"rms_norm_bwd", "rms_norm_bwd_acc"});
  EXPECT_EQ(ops["rms_norm_bwd_acc"], 1);
  EXPECT_EQ(ops["rms_norm_bwd"] + ops["rms_norm_dw"] + ops["rms_norm_dx"] + ops["accumulate"] + ops["add"], 0);
}

TEST(FuseNorms, KeepsASumThatIsNotOnlyAdded) {
  for (const Sums sums : {Sums::kOneApart, Sums::kReadTwice}) {
    auto ops = Fused(RmsNormGraph(sums), {"rms_norm_bwd", "rms_norm_bwd_acc"});
    EXPECT_EQ(ops["rms_norm_bwd"], 1);
    EXPECT_EQ(ops["rms_norm_bwd_acc"], 0);
    EXPECT_EQ(ops["accumulate"], sums == Sums::kReadTwice ? 1 : 0);
    ops = Fused(LayerNormGraph(sums), {"layer_norm_bwd", "layer_norm_bwd_acc"});
    EXPECT_EQ(ops["layer_norm_bwd"], 1);
    EXPECT_EQ(ops["layer_norm_bwd_acc"], 0);
    EXPECT_EQ(ops["accumulate"], sums == Sums::kReadTwice ? 3 : 2);
  }
}

TEST(FuseNorms, WithoutSuchAKernelSumsAreAddedApart) {
  auto ops = Fused(RmsNormGraph(Sums::kAdded), {"rms_norm_bwd"});
  EXPECT_EQ(ops["rms_norm_bwd"], 1);
  EXPECT_EQ(ops["accumulate"], 1);
}

TEST(FuseNorms, OfLayerNormWithTheBiasBefore) {
  auto ops = Fused(LayerNormGraph(Sums::kAdded), {"layer_norm_bwd", "layer_norm_bwd_acc"});
  EXPECT_EQ(ops["layer_norm_bwd_acc"], 1);
  EXPECT_EQ(ops["bias_grad"], 1);
  EXPECT_EQ(ops["accumulate"], 1);
  ops = Fused(LayerNormGraph(Sums::kAdded), {"layer_norm_bwd", "layer_norm_bwd_sum", "layer_norm_bwd_sum_acc"});
  EXPECT_EQ(ops["layer_norm_bwd_sum_acc"], 1);
  EXPECT_EQ(ops["bias_grad"] + ops["accumulate"], 0);
  // Nor where a kernel of its own would add the bias's.
  ops = Fused(LayerNormGraph(Sums::kAdded),
              {"linear_dw_acc", "bias_grad_acc", "layer_norm_bwd", "layer_norm_bwd_sum", "layer_norm_bwd_sum_acc"});
  EXPECT_EQ(ops["layer_norm_bwd_sum_acc"], 1);
  EXPECT_EQ(ops["bias_grad_acc"] + ops["accumulate"], 0);
  ops = Fused(LayerNormGraph(Sums::kOneApart),
              {"linear_dw_acc", "bias_grad_acc", "layer_norm_bwd", "layer_norm_bwd_sum", "layer_norm_bwd_sum_acc"});
  EXPECT_EQ(ops["layer_norm_bwd_sum"], 1);
  EXPECT_EQ(ops["accumulate"], 2);
}

}  // namespace
}  // namespace strata
