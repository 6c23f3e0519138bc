// When a product takes the element-wise work on its result, and that the numbers stay.

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <string>

#include "core/graph/autograd.h"
#include "core/ops/bias.h"
#include "core/ops/elementwise.h"
#include "core/ops/flat.h"
#include "core/ops/gelu.h"
#include "core/ops/linear.h"
#include "core/plan/fuse.h"
#include "tests/testing/fused_graph.h"

namespace strata {
namespace {

using testing::Tensor;

Tensor Random(const Shape& shape, uint64_t seed) { return Tensor::Random(DType::kF64, shape, seed); }

// A feed-forward layer and its gradients, with weights whose storage is adjacent; `also` reads more of it.
struct Layer {
  Value gate, up, h, dh;
};
Graph LayerGraph(const std::function<void(GraphBuilder&, const Layer&)>& also) {
  constexpr int64_t K = 4, F = 6;
  GraphBuilder g;
  const auto weight = [&](const char* name, Shape shape, StateId storage, int64_t offset) {
    State s{name, Role::kParam, {DType::kF64, shape, {}}};
    s.storage = storage;
    s.storage_offset = offset;
    return g.Read(g.Declare(s));
  };
  const StateId flat = g.Declare({"flat", Role::kParam, {DType::kF64, {2 * F * K}, {}}});
  const Value x = g.Input("x", {DType::kF64, {2, 3, K}, {}}), dy = g.Input("dy", {DType::kF64, {2, 3, K}, {}});
  const Value w_gate = weight("gate", {F, K}, flat, 0), w_up = weight("up", {F, K}, flat, F * K);
  const Value w_down = g.Read(g.Declare({"down", Role::kParam, {DType::kF64, {K, F}, {}}}));
  const Value gate = Linear(g, x, w_gate), up = Linear(g, x, w_up), h = Swiglu(g, gate, up);
  g.Output("y", Linear(g, h, w_down));
  const Value dh = LinearDx(g, dy, w_down);
  const SwigluGrads d = SwigluDx(g, dh, gate, up);
  g.Output("dx", Add(g, LinearDx(g, d.gate, w_gate), LinearDx(g, d.up, w_up)));
  g.Output("dw", Pack(g, {LinearDw(g, d.gate, x), LinearDw(g, d.up, x)}, {0, F * K}, 2 * F * K, DType::kF64));
  also(g, {gate, up, h, dh});
  auto graph = std::move(g).Build();
  EXPECT_TRUE(graph.ok()) << graph.status();
  return *std::move(graph);
}

KernelTable WithPackedOps() {  // of which the fusion asks only whether they are there
  KernelTable kernels = CpuKernels();
  for (const char* op : {"linear_packed", "linear_packed_bias", "linear_packed_dx", "linear_dw_acc", "swiglu_packed",
                         "swiglu_packed_dx", "linear_bias", "bias_grad_acc", "linear_dx_gelu_acc"}) {
    kernels.Add(op, DType::kF64, {});
  }
  return kernels;
}

// The ops after fusion, which gives the same numbers.
std::map<std::string, int> Fused(const Graph& plain) {
  const auto mesh = Mesh::Make({}, 1, 0);
  EXPECT_TRUE(mesh.ok()) << mesh.status();
  const auto fused = FuseOps(plain, *mesh, WithPackedOps());
  EXPECT_TRUE(fused.ok()) << fused.status();
  const std::map<std::string, Tensor> bindings = {
      {"x", Random({2, 3, 4}, 1)}, {"dy", Random({2, 3, 4}, 2)}, {"flat", Random({48}, 3)}, {"down", Random({4, 6}, 4)},
      {"up", Random({6, 4}, 5)},   {"bias", Random({6}, 6)},     {"sum", Random({6}, 7)}};
  const auto want = testing::OutputsOf(plain, bindings), got = testing::OutputsOf(*fused, bindings);
  for (const auto& [name, tensor] : want) EXPECT_LE(MaxAbsDiff(got.at(name), tensor), 1e-13) << name;
  return testing::OpCounts(*fused);
}

TEST(FuseSwiglu, TakesTheGradientThatNothingElseReads) {
  auto ops = Fused(LayerGraph([](GraphBuilder&, const Layer&) {}));
  EXPECT_EQ(ops["linear_swiglu"], 1);
  EXPECT_EQ(ops["linear_dx_swiglu"], 1);
  EXPECT_EQ(ops["linear_dx"] + ops["swiglu_packed"] + ops["swiglu_packed_dx"], 0);
}

TEST(FuseSwiglu, KeepsAGradientThatOthersRead) {
  for (const bool output : {false, true}) {
    auto ops = Fused(
        LayerGraph([output](GraphBuilder& g, const Layer& l) { g.Output("more", output ? l.dh : Scale(g, l.dh, 2)); }));
    EXPECT_EQ(ops["linear_swiglu"], 1);
    EXPECT_EQ(ops["linear_dx_swiglu"], 0);
    EXPECT_EQ(ops["linear_dx"], 1);
    EXPECT_EQ(ops["swiglu_packed_dx"], 1);
  }
}

TEST(FuseSwiglu, AResultMayHaveManyReaders) {
  auto ops = Fused(LayerGraph([](GraphBuilder& g, const Layer& l) { g.Output("more", Scale(g, l.h, 2)); }));
  EXPECT_EQ(ops["linear_swiglu"], 1);
  EXPECT_EQ(ops["linear_dx_swiglu"], 1);
}

TEST(FuseSwiglu, ComputesAgainWhatBackwardWantsAgain) {
  auto ops = Fused(LayerGraph([](GraphBuilder& g, const Layer& l) { g.Output("again", Swiglu(g, l.gate, l.up)); }));
  EXPECT_EQ(ops["linear_swiglu"], 1);
  EXPECT_EQ(ops["swiglu_packed"], 1);
  EXPECT_EQ(ops["linear_dx_swiglu"], 1);
}

TEST(FuseSwiglu, LeavesAGateThatOthersRead) {
  auto ops = Fused(LayerGraph([](GraphBuilder& g, const Layer& l) { g.Output("more", Scale(g, l.gate, 2)); }));
  EXPECT_EQ(ops["linear_swiglu"] + ops["linear_dx_swiglu"], 0);
  EXPECT_EQ(ops["swiglu"], 1);
}

// The same with gelu and a bias.
struct BiasedLayer {
  Value pre, h, dh;
};
enum class BiasGradient { kAdded, kApart };
Graph BiasedGraph(const std::function<void(GraphBuilder&, const BiasedLayer&)>& also,
                  BiasGradient bias_gradient = BiasGradient::kAdded) {
  constexpr int64_t K = 4, F = 6;
  GraphBuilder g;
  const auto weight = [&](const char* name, Shape shape) {
    return g.Read(g.Declare({name, Role::kParam, {DType::kF64, shape, {}}}));
  };
  const Value x = g.Input("x", {DType::kF64, {2, 3, K}, {}}), dy = g.Input("dy", {DType::kF64, {2, 3, K}, {}});
  const Value up = weight("up", {F, K}), bias = weight("bias", {F}), down = weight("down", {K, F});
  const Value pre = BiasAdd(g, Linear(g, x, up), bias), h = Gelu(g, pre, GeluKind::kTanh);
  g.Output("y", Linear(g, h, down));
  const Value dh = LinearDx(g, dy, down), dpre = GeluDx(g, dh, pre, GeluKind::kTanh);
  g.Output("dx", LinearDx(g, dpre, up));
  g.Output("dw", LinearDw(g, dpre, x));
  Value db = BiasGrad(g, dpre);
  if (bias_gradient == BiasGradient::kAdded) {
    const StateId sum = g.Declare({"sum", Role::kGrad, {DType::kF64, {F}, {}}});
    db = Accumulate(g, g.Read(sum), db);
    g.Update(sum, db);
  }
  g.Output("db", db);
  also(g, {pre, h, dh});
  auto graph = std::move(g).Build();
  EXPECT_TRUE(graph.ok()) << graph.status();
  return *std::move(graph);
}

TEST(FuseGelu, TakesTheGradientThatNothingElseReads) {
  for (const bool reads_pre : {false, true}) {  // which is stored anyway
    auto ops = Fused(BiasedGraph([reads_pre](GraphBuilder& g, const BiasedLayer& l) {
      if (reads_pre) g.Output("more", Scale(g, l.pre, 2));
    }));
    EXPECT_EQ(ops["linear_bias_gelu"], 1);
    EXPECT_EQ(ops["linear_dx_gelu_acc"], 1);  // and its sum for the bias
    EXPECT_EQ(ops["gelu"] + ops["gelu_dx"] + ops["linear_bias"] + ops["linear_dx_gelu"] + ops["bias_grad_acc"], 0);
    EXPECT_EQ(ops["linear_dx"], 1);  // of x
  }
}

TEST(FuseGelu, KeepsAGradientThatOthersRead) {
  auto ops = Fused(BiasedGraph([](GraphBuilder& g, const BiasedLayer& l) { g.Output("more", l.dh); }));
  EXPECT_EQ(ops["linear_bias_gelu"], 1);
  EXPECT_EQ(ops["linear_dx_gelu"] + ops["linear_dx_gelu_acc"], 0);
  EXPECT_EQ(ops["gelu_dx"], 1);
  EXPECT_EQ(ops["bias_grad_acc"], 1);
}

TEST(FuseGelu, KeepsASumThatIsNotAddedInPlace) {
  auto ops = Fused(BiasedGraph([](GraphBuilder&, const BiasedLayer&) {}, BiasGradient::kApart));
  EXPECT_EQ(ops["linear_dx_gelu"], 1);
  EXPECT_EQ(ops["bias_grad"], 1);
  EXPECT_EQ(ops["linear_dx_gelu_acc"], 0);
}

TEST(FuseGelu, OfSeveralTakesTheFirst) {
  auto ops = Fused(BiasedGraph([](GraphBuilder& g, const BiasedLayer& l) {
    g.Output("again", Gelu(g, l.pre, GeluKind::kTanh));
    g.Output("other", Gelu(g, l.pre, GeluKind::kErf));
  }));
  EXPECT_EQ(ops["linear_bias_gelu"], 1);
  EXPECT_EQ(ops["gelu"], 2);
}

TEST(FuseGelu, LeavesAProductThatOthersReadWithoutItsBias) {
  auto ops = Fused(BiasedGraph([](GraphBuilder& g, const BiasedLayer& l) {
    const Value product = g.graph().nodes[l.pre.node].inputs[0];
    g.Output("more", Scale(g, product, 2));
  }));
  EXPECT_EQ(ops["linear_bias_gelu"], 0);
  EXPECT_EQ(ops["gelu"], 1);
  EXPECT_EQ(ops["linear_dx_gelu_acc"], 1);
}

}  // namespace
}  // namespace strata
