// Products with element-wise work on their results: the bits of the ops that they stand for.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <tuple>

#include "absl/strings/str_cat.h"
#include "core/ops/bias.h"
#include "core/ops/elementwise.h"
#include "core/ops/fused.h"
#include "core/ops/gelu.h"
#include "core/ops/linear.h"
#include "core/ops/move.h"
#include "core/ops/rope.h"
#include "tests/testing/op_checks.h"

namespace strata {
namespace {

using testing::Call;
using testing::GraphFn;
using ::testing::HasSubstr;
using testing::Tensor;
using Values = std::vector<Value>;

Tensor Random(const Shape& shape, uint64_t seed) { return Tensor::Random(DType::kF64, shape, seed); }

const GraphFn kSwiglu = [](GraphBuilder& g, const Values& in) {
  const GatedProduct p = LinearSwiglu(g, in[0], in[1], in[2]);
  return Values{p.gu_2F, p.h_F};
};
const GraphFn kSwigluApart = [](GraphBuilder& g, const Values& in) {
  const Value gate = Linear(g, in[0], in[1]), up = Linear(g, in[0], in[2]);
  return Values{Concat(g, {gate, up}, 2), Swiglu(g, gate, up)};
};
const GraphFn kDxSwiglu = [](GraphBuilder& g, const Values& in) {
  return Values{LinearDxSwiglu(g, in[0], in[1], in[2])};
};
const GraphFn kDxSwigluApart = [](GraphBuilder& g, const Values& in) {
  const SwigluGrads d = SwigluDx(g, LinearDx(g, in[0], in[1]), Slice(g, in[2], 2, 0, 2), Slice(g, in[2], 2, 1, 2));
  return Values{Concat(g, {d.gate, d.up}, 2)};
};

// x, positions, q of four heads, k and v of two.
constexpr int64_t kGroup = 2;
const RopeAttributes kRope{100};
int64_t HeadDim(GraphBuilder& g, const Values& in) { return g.spec(in[3]).shape[0] / 2; }
const GraphFn kLinearRope = [](GraphBuilder& g, const Values& in) {
  return Values{LinearRope(g, in[0], in[1], std::span(in).subspan(2), kRope, kGroup, HeadDim(g, in))};
};
const GraphFn kLinearRopeApart = [](GraphBuilder& g, const Values& in) {
  const auto heads = [&](Value w) { return SplitDim(g, Linear(g, in[0], w), 2, HeadDim(g, in)); };
  return Values{HeadsPacked(g, Rope(g, heads(in[2]), in[1], kRope), Rope(g, heads(in[3]), in[1], kRope), heads(in[4]))};
};
constexpr int64_t HeadDimOf(int64_t F) { return (F + 7) / 8 * 2; }
std::vector<Tensor> RopeInputs(const Shape& positions, int64_t rows, int64_t width, int64_t F) {
  const int64_t D = HeadDimOf(F);
  return {Random({2, rows, width}, 1), Tensor::RandomInts(positions, 0, 5000, 2), Random({4 * D, width}, 3),
          Random({2 * D, width}, 4), Random({2 * D, width}, 5)};
}

template <GeluKind kKind>
Values BiasGelu(GraphBuilder& g, const Values& in) {
  const GeluProduct p = LinearBiasGelu(g, in[0], in[1], in[2], kKind);
  return {p.pre_F, p.h_F};
}
template <GeluKind kKind>
Values BiasGeluApart(GraphBuilder& g, const Values& in) {
  const Value pre = BiasAdd(g, Linear(g, in[0], in[1]), in[2]);
  return {pre, Gelu(g, pre, kKind)};
}
template <GeluKind kKind>
Values DxGelu(GraphBuilder& g, const Values& in) {
  return {LinearDxGelu(g, in[0], in[1], in[2], kKind)};
}
template <GeluKind kKind>
Values DxGeluApart(GraphBuilder& g, const Values& in) {
  return {GeluDx(g, LinearDx(g, in[0], in[1]), in[2], kKind)};
}
std::vector<Tensor> BiasGeluInputs(int64_t rows, int64_t width, int64_t F) {
  return {Random({2, rows, width}, 1), Random({F, width}, 2), Random({F}, 3)};
}
std::vector<Tensor> DxGeluInputs(int64_t rows, int64_t width, int64_t F) {
  return {Random({2, rows, width}, 1), Random({width, F}, 2), Random({2, rows, F}, 3)};
}
int64_t Columns(int64_t F) { return F; }

struct Case {
  const char* name;
  GraphFn fused, apart;
  std::vector<Tensor> (*inputs)(int64_t rows, int64_t width, int64_t F);
  int64_t (*columns)(int64_t F);  // of the product
};
const Case kCases[] = {
    {"linear_swiglu", kSwiglu, kSwigluApart,
     [](int64_t rows, int64_t width, int64_t F) {
       return std::vector{Random({2, rows, width}, 1), Random({F, width}, 2), Random({F, width}, 3)};
     },
     [](int64_t F) { return 2 * F; }},
    {"linear_dx_swiglu", kDxSwiglu, kDxSwigluApart,
     [](int64_t rows, int64_t width, int64_t F) {
       return std::vector{Random({2, rows, width}, 1), Random({width, F}, 2), Random({2, rows, 2 * F}, 3)};
     },
     Columns},
    {"linear_bias_gelu", BiasGelu<GeluKind::kTanh>, BiasGeluApart<GeluKind::kTanh>, BiasGeluInputs, Columns},
    {"linear_bias_gelu erf", BiasGelu<GeluKind::kErf>, BiasGeluApart<GeluKind::kErf>, BiasGeluInputs, Columns},
    {"linear_dx_gelu", DxGelu<GeluKind::kTanh>, DxGeluApart<GeluKind::kTanh>, DxGeluInputs, Columns},
    {"linear_dx_gelu erf", DxGelu<GeluKind::kErf>, DxGeluApart<GeluKind::kErf>, DxGeluInputs, Columns},
    {"linear_rope", kLinearRope, kLinearRopeApart,
     [](int64_t rows, int64_t width, int64_t F) { return RopeInputs({rows}, rows, width, F); },
     [](int64_t F) { return 8 * HeadDimOf(F); }},
    {"linear_rope, rows of their own positions", kLinearRope, kLinearRopeApart,
     [](int64_t rows, int64_t width, int64_t F) {
       return RopeInputs({2, rows}, rows, width, F);
     },
     [](int64_t F) { return 8 * HeadDimOf(F); }},
};

// Sums of products and what is made of them are rounded at the same places, also in bf16.
TEST(LinearFusedTest, HasTheBitsOfItsParts) {
  for (const Case& c : kCases) {
    for (const auto& [rows, width, F] :
         std::vector<std::tuple<int, int, int>>{{1, 1, 1}, {5, 33, 17}, {64, 70, 344}, {9, 1030, 513}}) {
      for (const DType t : {DType::kF64, DType::kF32, DType::kBF16}) {
        SCOPED_TRACE(absl::StrCat(c.name, " ", rows, " ", width, " ", F, " ", Name(t)));
        std::vector<Tensor> inputs = c.inputs(rows, width, F);
        for (Tensor& x : inputs) x = testing::Converted(x, t);
        const auto fused = Call(c.fused, inputs), apart = Call(c.apart, inputs);
        ASSERT_TRUE(fused.ok() && apart.ok()) << fused.status() << apart.status();
        ASSERT_EQ(fused->size(), apart->size());
        for (size_t i = 0; i < apart->size(); ++i) EXPECT_TRUE((*fused)[i].data == (*apart)[i].data) << i;
      }
    }
  }
}

TEST(LinearFusedTest, IsWhatItDecomposesInto) {
  for (const Case& c : kCases) {
    const GraphFn plain = [&c](GraphBuilder& g, const Values& in) {
      const std::shared_ptr<const Op> op = g.graph().nodes[c.fused(g, in)[0].node].op;
      const auto out = op->Decompose(g, in);
      EXPECT_TRUE(out.ok()) << out.status();
      return *out;
    };
    const std::vector<Tensor> inputs = c.inputs(5, 33, 17);
    const auto fused = Call(c.fused, inputs), decomposed = Call(plain, inputs);
    ASSERT_TRUE(fused.ok() && decomposed.ok());
    ASSERT_EQ(fused->size(), decomposed->size());
    for (size_t i = 0; i < fused->size(); ++i) EXPECT_LE(MaxAbsDiff((*fused)[i], (*decomposed)[i]), 1e-13) << c.name;
  }
}

TEST(LinearFusedTest, ResultsDoNotDependOnThreads) {
  for (const Case& c : kCases) EXPECT_TRUE(testing::CheckThreads(c.fused, c.inputs(99, 130, 521)).ok()) << c.name;
}

TEST(LinearFusedTest, CountsTheWorkOfTheProduct) {
  for (const Case& c : kCases) {
    GraphBuilder g;
    Values in;
    for (const Tensor& x : c.inputs(3, 5, 7)) in.push_back(g.Input(std::to_string(in.size()), {x.dtype, x.shape, {}}));
    const Node& n = g.graph().nodes[c.fused(g, in)[0].node];
    std::vector<TensorSpec> specs;
    for (Value v : n.inputs) specs.push_back(g.spec(v));
    EXPECT_TRUE(CpuKernels().Has(n.op->name())) << "else the others test what it decomposes into";
    EXPECT_EQ(n.op->Flops(specs), 2.0 * 6 * 5 * static_cast<double>(c.columns(7))) << c.name;
  }
}

TEST(LinearFusedTest, ErrorsNameShapesAndPlace) {
  const absl::Status s = testing::BuildError(
      kSwiglu, {{DType::kF32, {2, 3, 5}, {}}, {DType::kF32, {7, 5}, {}}, {DType::kF32, {6, 5}, {}}});
  EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(s.message()), HasSubstr("linear_fused_test.cc:"));
  EXPECT_FALSE(testing::BuildError(
                   kDxSwiglu, {{DType::kF32, {2, 3, 5}, {}}, {DType::kF32, {5, 7}, {}}, {DType::kF32, {2, 3, 7}, {}}})
                   .ok());
}

}  // namespace
}  // namespace strata
