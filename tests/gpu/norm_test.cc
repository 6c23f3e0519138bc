#include "core/ops/fused.h"
#include "core/ops/layer_norm.h"
#include "core/ops/move.h"
#include "core/ops/rms_norm.h"
#include "tests/testing/gpu.h"

namespace strata::testing {
namespace {

using Values = std::vector<Value>;
constexpr double kEps = 1e-5;

Tensor Random(Shape shape, uint64_t seed) { return Tensor::Random(DType::kF64, shape, seed); }

Values All(const NormGradsAndSum& d) { return {d.norm.dx_BSE, d.norm.dw_E, d.norm.db_E, d.dx_sum_E}; }
const GraphFn kGradientsAndSum = [](GraphBuilder& g, const Values& in) {  // x, w, b, dy, r
  const Value y = LayerNorm(g, in[0], in[1], in[2], kEps);
  return All(LayerNormBwdSum(g, in[3], in[0], in[1], {y.node, 1}, {y.node, 2}, in[4]));
};

struct Sizes {
  int64_t b, s, e;
};
std::vector<Tensor> LayerNormOperands(const Sizes& z) {  // x, w, b, dy, r
  const Shape x{z.b, z.s, z.e}, w{z.e};
  return {Random(x, 1), Random(w, 2), Random(w, 5), Random(x, 3), Random(x, 4)};
}
// One of each spread of a row over threads, in f32 or bf16, with rows for several rounds; rows of odd length, rows that end within a
// warp's vectors, and rows that are too long for registers.
constexpr Sizes kAllSizes[] = {{2, 9, 7},      {3, 11, 8},   {10, 900, 32}, {5, 300, 96}, {2, 150, 768}, {2, 13, 1024},
                               {4, 150, 2048}, {2, 5, 4096}, {2, 5, 8192},  {1, 3, 8200}, {1, 7, 2050},  {1, 1, 12},
                               {1, 150, 1032}, {3, 5, 3072}, {2, 9, 4104},  {1, 140, 264}};
constexpr Sizes kSmallSizes[] = {{2, 9, 7},     {3, 11, 8},   {1, 30, 96},  {1, 560, 1024},
                                 {1, 20, 2048}, {1, 5, 4096}, {1, 3, 8192}, {1, 2, 8200}};
const std::span<const Sizes> kSizes = ShapesOf(kAllSizes, kSmallSizes);
// Teams of 1, 2, 3, 4 and 8 warps a row (core/kernels/norm_staged.cuh) in bf16, each with more rows than its ring has places.
constexpr Sizes kManyRows[] = {{4, 3300, 264}, {4, 1100, 1032}, {2, 1400, 2056}, {2, 800, 3080}, {1, 1100, 4104}};

TEST(CudaRmsNorm, ForwardAndGradients) {
  STRATA_NEEDS_GPU();
  for (const auto& [b, s, e] : kSizes) {
    const Tensor x = Random({b, s, e}, 1), w = Random({e}, 2), dy = Random({b, s, e}, 3), r = Random({b, s, e}, 4);
    SCOPED_TRACE(ToString(x.shape));
    const auto rstd = [](GraphBuilder& g, const Values& in) { return Value{RmsNorm(g, in[0], in[1], kEps).node, 1}; };
    ExpectGpuClose(
        [](GraphBuilder& g, const Values& in) {
          const Value y = RmsNorm(g, in[0], in[1], kEps);
          return Values{y, {y.node, 1}};
        },
        {x, w});
    ExpectGpuClose(
        [&](GraphBuilder& g, const Values& in) {
          const Value rs = rstd(g, in);
          return Values{RmsNormDx(g, in[2], in[0], in[1], rs), RmsNormDw(g, in[2], in[0], rs)};
        },
        {x, w, dy});
    ExpectGpuClose(
        [&](GraphBuilder& g, const Values& in) {
          const NormGrads d = RmsNormBwd(g, in[2], in[0], in[1], rstd(g, in), {});
          return Values{d.dx_BSE, d.dw_E};
        },
        {x, w, dy});
    for (const bool in_place : {false, true}) {
      ExpectGpuClose(
          [&](GraphBuilder& g, const Values& in) {
            const NormGrads d = RmsNormBwd(g, in[2], in[0], in[1], rstd(g, in), in[3]);
            return Values{d.dx_BSE, d.dw_E};
          },
          {x, w, dy, r}, {.in_place = in_place});
    }
  }
}

TEST(CudaRmsNorm, ManyRows) {
  STRATA_NEEDS_GPU();
  if (SmallShapes()) GTEST_SKIP() << "long under a sanitizer";
  for (const auto& [b, s, e] : kManyRows) {
    const Tensor x = Random({b, s, e}, 1), w = Random({e}, 2), dy = Random({b, s, e}, 3), r = Random({b, s, e}, 4);
    SCOPED_TRACE(ToString(x.shape));
    ExpectGpuClose(
        [](GraphBuilder& g, const Values& in) {
          const Value y = RmsNorm(g, in[0], in[1], kEps);
          const NormGrads d = RmsNormBwd(g, in[2], in[0], in[1], {y.node, 1}, in[3]);
          return Values{y, {y.node, 1}, d.dx_BSE, d.dw_E};
        },
        {x, w, dy, r}, {.in_place = true});
  }
}

TEST(CudaRmsNorm, OfEveryHead) {
  STRATA_NEEDS_GPU();
  for (const int64_t d : {16, 64, 128}) {
    ExpectGpuClose(
        [](GraphBuilder& g, const Values& in) {
          const Value y = RmsNorm(g, in[0], in[1], kEps), rstd{y.node, 1};
          const NormGrads all = RmsNormBwd(g, in[2], in[0], in[1], rstd, {});
          return Values{y, RmsNormDx(g, in[2], in[0], in[1], rstd), RmsNormDw(g, in[2], in[0], rstd), all.dx_BSE,
                        all.dw_E};
        },
        {Random({2, 9, 6, d}, 1), Random({d}, 2), Random({2, 9, 6, d}, 3)});
  }
}

TEST(CudaLayerNorm, ForwardAndGradients) {
  STRATA_NEEDS_GPU();
  for (const Sizes& z : kSizes) {
    const std::vector<Tensor> in = LayerNormOperands(z);
    const Tensor &x = in[0], &w = in[1], &bias = in[2], &dy = in[3];
    SCOPED_TRACE(ToString(x.shape));
    ExpectGpuClose(
        [](GraphBuilder& g, const Values& in) {
          const Value y = LayerNorm(g, in[0], in[1], in[2], kEps);
          return Values{y, {y.node, 1}, {y.node, 2}};
        },
        {x, w, bias});
    ExpectGpuClose(
        [](GraphBuilder& g, const Values& in) {
          const Value y = LayerNorm(g, in[0], in[1], in[2], kEps);
          const LayerNormGrads d = LayerNormDw(g, in[3], in[0], {y.node, 1}, {y.node, 2});
          return Values{LayerNormDx(g, in[3], in[0], in[1], {y.node, 1}, {y.node, 2}), d.weight_E, d.bias_E};
        },
        {x, w, bias, dy});
    for (const bool in_place : {false, true}) {
      ExpectGpuClose(
          [](GraphBuilder& g, const Values& in) {
            const Value y = LayerNorm(g, in[0], in[1], in[2], kEps);
            const NormGrads d = LayerNormBwd(g, in[3], in[0], in[1], {y.node, 1}, {y.node, 2}, in[4]);
            return Values{d.dx_BSE, d.dw_E, d.db_E};
          },
          in, {.in_place = in_place});
      ExpectGpuClose(kGradientsAndSum, in, {.in_place = in_place});
    }
  }
}

TEST(CudaLayerNorm, ManyRows) {
  STRATA_NEEDS_GPU();
  if (SmallShapes()) GTEST_SKIP() << "long under a sanitizer";
  for (const Sizes& z : kManyRows) {
    const std::vector<Tensor> in = LayerNormOperands(z);
    SCOPED_TRACE(ToString(in[0].shape));
    ExpectGpuClose(
        [](GraphBuilder& g, const Values& in) {
          const Value y = LayerNorm(g, in[0], in[1], in[2], kEps);
          const NormGrads d = LayerNormBwd(g, in[3], in[0], in[1], {y.node, 1}, {y.node, 2}, in[4]);
          return Values{y, {y.node, 1}, {y.node, 2}, d.dx_BSE, d.dw_E, d.db_E};
        },
        in, {.in_place = true});
    ExpectGpuClose(kGradientsAndSum, in, {.in_place = true});
  }
}

TEST(CudaLayerNorm, LeavesOutWhatIsNotAdded) {
  STRATA_NEEDS_GPU();
  ExpectGpuClose(
      [](GraphBuilder& g, const Values& in) {
        const Value y = LayerNorm(g, in[0], in[1], in[1], kEps);
        const NormGrads d = LayerNormBwd(g, in[2], in[0], in[1], {y.node, 1}, {y.node, 2}, {});
        return Values{d.dx_BSE, d.dw_E, d.db_E};
      },
      {Random({4, 100, 768}, 1), Random({768}, 2), Random({4, 100, 768}, 3)});
  ExpectGpuClose(
      [](GraphBuilder& g, const Values& in) {
        const Value y = LayerNorm(g, in[0], in[1], in[1], kEps);
        return All(LayerNormBwdSum(g, in[2], in[0], in[1], {y.node, 1}, {y.node, 2}, {}));
      },
      {Random({4, 100, 768}, 1), Random({768}, 2), Random({4, 100, 768}, 3)});
}

// Sums that are added to what is there, in float32 or once in bf16, or written over it: rows that go through shared memory, that lie in
// registers, and that are too long.
TEST(CudaNorms, SumsAreAddedInPlace) {
  STRATA_NEEDS_GPU();
  constexpr Sizes kAll[] = {{2, 300, 768}, {1, 150, 2048}, {2, 40, 96}, {1, 7, 2050}},
                  kSmall[] = {{2, 20, 768}, {1, 3, 96}};
  for (const Sizes& z : ShapesOf(kAll, kSmall)) {
    std::vector<Tensor> in = LayerNormOperands(z);  // and three accumulators
    for (uint64_t seed : {6, 7, 8}) in.push_back(Random({z.e}, seed));
    SCOPED_TRACE(ToString(in[0].shape));
    for (const size_t sums : {1, 2, 3}) {
      for (const bool rounded : {false, true}) {
        for (const bool overwrite : {false, true}) {
          const GraphFn fn = [=](GraphBuilder& g, const Values& v) {
            const Value y = sums > 1 ? LayerNorm(g, v[0], v[1], v[2], kEps) : RmsNorm(g, v[0], v[1], kEps);
            Values accs;
            for (size_t i = 0; i < sums; ++i) {
              const Value acc = v[5 + i];
              accs.push_back(rounded ? acc : Cast(g, acc, AccumulatorOf(g.spec(acc).dtype)));
            }
            const Value mean = sums > 1 ? Value{y.node, 1} : Value{}, rstd{y.node, sums > 1 ? 2 : 1};
            const NormGradsAdded d = NormBwdAcc(g, v[3], v[0], v[1], mean, rstd, accs, v[4]);
            Values out = {d.dx_BSE};
            out.insert(out.end(), d.accs_E.begin(), d.accs_E.end());
            return out;
          };
          ExpectGpuClose(fn, in, {.overwrite = overwrite, .in_place = overwrite});
        }
      }
    }
  }
}

// The variance is taken about the mean: a large mean costs no digits of it.
TEST(CudaLayerNorm, LargeMean) {
  STRATA_NEEDS_GPU();
  Tensor x = Random({2, 7, 768}, 1);
  for (int64_t i = 0; i < x.size(); ++i) x.set(i, x.at(i) + 1000);
  const auto errors =
      GpuErrors([](GraphBuilder& g, const Values& in) { return Values{LayerNorm(g, in[0], in[1], in[1], kEps)}; },
                {x, Random({768}, 2)}, DType::kF32);
  ASSERT_TRUE(errors.ok()) << errors.status();
  EXPECT_LE((*errors)[0], 1e-4) << "x has 24 bits, of which 10 are its mean's";
}

TEST(CudaRsqrt, OfWholeVectorsAndTails) {
  STRATA_NEEDS_GPU();
  Tensor x = Random({3, 67}, 1);
  for (int64_t i = 0; i < x.size(); ++i) x.set(i, x.at(i) * x.at(i));
  ExpectGpuClose([](GraphBuilder& g, const Values& in) { return Values{Rsqrt(g, in[0], kEps)}; }, {x});
}

}  // namespace
}  // namespace strata::testing
