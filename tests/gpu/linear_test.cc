#include "core/ops/linear.h"

#include <cmath>

#include "absl/strings/str_format.h"
#include "core/ops/fused.h"
#include "core/ops/move.h"
#include "tests/testing/gpu.h"

namespace strata::testing {
namespace {

using Values = std::vector<Value>;

Tensor Random(Shape shape, uint64_t seed) { return Tensor::Random(DType::kF64, shape, seed); }

void ExpectClose(const GraphFn& fn, const std::vector<Tensor>& inputs, const GpuOptions& options = {}) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const auto errors = GpuErrors(fn, inputs, dtype, options);
    ASSERT_TRUE(errors.ok()) << errors.status();
    for (size_t i = 0; i < errors->size(); ++i) EXPECT_LE((*errors)[i], GpuTolerance(dtype)) << Name(dtype) << " " << i;
  }
}

Value Acc(GraphBuilder& g, Value v) { return Cast(g, v, AccumulatorOf(g.spec(v).dtype)); }

struct Sizes {
  int64_t b, s, k, n;
};
constexpr Sizes kSizes[] = {{2, 64, 128, 192}, {2, 60, 72, 40}, {1, 8, 256, 1024}};

TEST(CudaLinear, ForwardAndGradients) {
  STRATA_NEEDS_GPU();
  for (const auto& [b, s, k, n] : kSizes) {
    const Tensor x = Random({b, s, k}, 1), w = Random({n, k}, 2), dy = Random({b, s, n}, 3);
    ExpectClose([](GraphBuilder& g, const Values& in) { return Values{Linear(g, in[0], in[1])}; }, {x, w});
    ExpectClose([](GraphBuilder& g, const Values& in) { return Values{LinearDx(g, in[0], in[1])}; }, {dy, w});
    ExpectClose([](GraphBuilder& g, const Values& in) { return Values{LinearDw(g, in[0], in[1])}; }, {dy, x});
    ExpectClose([](GraphBuilder& g, const Values& in) { return Values{LinearAdd(g, in[0], in[1], in[2])}; },
                {x, w, dy});
  }
}

TEST(CudaLinear, PackedWeightsAreOneMatrix) {
  STRATA_NEEDS_GPU();
  const Tensor x = Random({2, 32, 128}, 1), a = Random({64, 128}, 2), b = Random({32, 128}, 3),
               dy = Random({2, 32, 128}, 4);
  ExpectClose(
      [](GraphBuilder& g, const Values& in) {
        return Values{LinearPacked(g, in[0], std::vector{in[1], in[2], in[3]})};
      },
      {x, a, b, b});
  ExpectClose(
      [](GraphBuilder& g, const Values& in) {
        return Values{LinearPackedDx(g, in[0], std::vector{in[1], in[2], in[3]})};
      },
      {dy, a, b, b});
  ExpectClose(
      [](GraphBuilder& g, const Values& in) {
        return Values{LinearDxAdd(g, in[0], std::vector{in[1], in[2], in[3]}, in[4])};
      },
      {dy, a, b, b, x});
}

TEST(CudaLinear, WeightGradientsAddUp) {
  STRATA_NEEDS_GPU();
  const Tensor x = Random({2, 32, 128}, 1), dy = Random({2, 32, 96}, 2), a = Random({64, 128}, 3),
               b = Random({32, 128}, 4);
  for (const bool overwrite : {true, false}) {
    for (const bool always : {true, false}) {
      ExpectClose(
          [always](GraphBuilder& g, const Values& in) {
            return LinearDwAcc(g, std::vector{Acc(g, in[0]), Acc(g, in[1])}, in[2], in[3], always);
          },
          {a, b, dy, x}, {.overwrite = overwrite});
    }
  }
}

TEST(CudaLinear, GradientsOfBiasesAddUp) {
  STRATA_NEEDS_GPU();
  const Shape all[] = {{2, 33}, {3, 700}}, small[] = {{2, 33}};
  for (const Shape& rows : ShapesOf(all, small)) {
    const Tensor a = Random({64}, 1), b = Random({128}, 2), dy = Random({rows[0], rows[1], 192}, 3),
                 odd = Random({rows[0], rows[1], 13}, 4), c = Random({13}, 5);
    for (const bool overwrite : {true, false}) {
      for (const bool always : {true, false}) {
        ExpectClose(
            [always](GraphBuilder& g, const Values& in) {
              return BiasGradAcc(g, std::vector{Acc(g, in[0]), Acc(g, in[1])}, in[2], always);
            },
            {a, b, dy}, {.overwrite = overwrite});
        ExpectClose([always](GraphBuilder& g,
                             const Values& in) { return BiasGradAcc(g, std::vector{Acc(g, in[0])}, in[1], always); },
                    {c, odd}, {.overwrite = overwrite});
      }
      ExpectClose(  // also into bf16
          [](GraphBuilder& g, const Values& in) {
            return BiasGradAcc(g, std::vector{in[0], in[1]}, in[2], false);
          },
          {Random({128}, 6), b, Random({rows[0], rows[1], 256}, 7)}, {.overwrite = overwrite});
    }
  }
}

// On the GPU and on the CPU, which round at the same places, in the operands' dtype. Widths of rows that are no multiple of 16
// bytes too; K such that gate and up are adjacent.
TEST(CudaLinear, SwigluInTheProduct) {
  STRATA_NEEDS_GPU();
  struct Case {
    int64_t b, s, k, f, n;
  };
  constexpr Case kAll[] = {{2, 64, 128, 192, 128},
                           {3, 43, 256, 344, 72},
                           {1, 5, 128, 7, 24},
                           {2, 100, 384, 513, 200},
                           {2, 256, 512, 1408, 512}},
                 kSmall[] = {{3, 43, 256, 344, 72}, {1, 5, 128, 7, 24}};
  for (const auto& [b, s, k, f, n] : ShapesOf(kAll, kSmall)) {
    for (const DType t : {DType::kF32, DType::kBF16}) {
      SCOPED_TRACE(absl::StrFormat("%d x %d, K %d, F %d, %s", b, s, k, f, Name(t)));
      const auto random = [t](Shape shape, uint64_t seed, double scale) {
        return Converted(Tensor::Random(DType::kF64, shape, seed, scale), t);
      };
      const double scale = 1 / std::sqrt(static_cast<double>(k));
      const Tensor x = random({b, s, k}, 1, 1), gate = random({f, k}, 2, 2 * scale), up = random({f, k}, 3, 2 * scale),
                   dy = random({b, s, n}, 4, 1), down = random({n, f}, 5, 1 / std::sqrt(static_cast<double>(n))),
                   gu = random({b, s, 2 * f}, 6, 2);
      const auto forward = GpuKernelErrors(
          [](GraphBuilder& g, const Values& in) {
            const GatedProduct p = LinearSwiglu(g, in[0], in[1], in[2]);
            return Values{p.gu_2F, p.h_F};
          },
          {x, gate, up});
      const auto backward = GpuKernelErrors(
          [](GraphBuilder& g, const Values& in) { return Values{LinearDxSwiglu(g, in[0], in[1], in[2])}; },
          {dy, down, gu});
      for (const auto& errors : {forward, backward}) {
        ASSERT_TRUE(errors.ok()) << errors.status();
        // A gate that rounds the other way is a unit in its last place off, and so may be what is made of it.
        for (double e : *errors) EXPECT_LE(e, GpuTolerance(t));
      }
    }
  }
}

TEST(CudaLinear, RopeInTheProduct) {
  STRATA_NEEDS_GPU();
  struct Case {
    int64_t b, s, k, kv, group, d;
  };
  constexpr Case kAll[] = {{2, 64, 256, 4, 1, 128}, {3, 43, 128, 2, 4, 64},    {1, 5, 128, 1, 2, 6},
                           {2, 9, 384, 3, 1, 2},    {2, 128, 1024, 8, 1, 128}, {2, 128, 1024, 8, 2, 64}},
                 kSmall[] = {{3, 43, 128, 2, 4, 64}, {1, 5, 128, 1, 2, 6}};
  for (const auto& [b, s, k, kv, group, d] : ShapesOf(kAll, kSmall)) {
    for (const Shape& positions : {Shape{s}, Shape{b, s}}) {
      for (const DType t : {DType::kF32, DType::kBF16}) {
        SCOPED_TRACE(absl::StrFormat("%d x %d, K %d, %d x %d heads of %d, positions %s, %s", b, s, k, kv, group + 2, d,
                                     ToString(positions), Name(t)));
        const auto weight = [&, k = k](int64_t rows, uint64_t seed) {
          return Converted(Tensor::Random(DType::kF64, {rows, k}, seed, 1 / std::sqrt(static_cast<double>(k))), t);
        };
        const auto errors = GpuKernelErrors(
            [group = group, d = d](GraphBuilder& g, const Values& in) {
              return Values{
                  LinearRope(g, in[0], in[1], std::vector{in[2], in[3], in[4]}, RopeAttributes{10000}, group, d)};
            },
            {Converted(Random({b, s, k}, 1), t), Tensor::RandomInts(positions, 0, 8192, 2), weight(kv * group * d, 3),
             weight(kv * d, 4), weight(kv * d, 5)});
        ASSERT_TRUE(errors.ok()) << errors.status();
        EXPECT_LE((*errors)[0], GpuTolerance(t));
      }
    }
  }
}

TEST(CudaLinear, GeluInTheProduct) {
  STRATA_NEEDS_GPU();
  struct Case {
    int64_t b, s, k, f;
  };
  constexpr Case kAll[] = {{2, 64, 128, 192}, {3, 43, 72, 344}, {1, 5, 33, 7}, {2, 256, 512, 2048}},
                 kSmall[] = {{3, 43, 72, 344}, {1, 5, 33, 7}};
  for (const auto& [b, s, k, f] : ShapesOf(kAll, kSmall)) {
    for (const GeluKind kind : {GeluKind::kTanh, GeluKind::kErf}) {
      for (const DType t : {DType::kF32, DType::kBF16}) {
        SCOPED_TRACE(absl::StrFormat("%d x %d, K %d, F %d, %s, %d", b, s, k, f, Name(t), static_cast<int>(kind)));
        const double scale = 1 / std::sqrt(static_cast<double>(k));
        const Tensor x = Converted(Random({b, s, k}, 1), t),
                     w = Converted(Tensor::Random(DType::kF64, {f, k}, 2, 2 * scale), t),
                     bias = Converted(Random({f}, 3), t),
                     down = Converted(Tensor::Random(DType::kF64, {k, f}, 4, scale), t),
                     pre = Converted(Tensor::Random(DType::kF64, {b, s, f}, 5, 2), t);
        const auto forward = GpuKernelErrors(
            [kind](GraphBuilder& g, const Values& in) {
              const GeluProduct p = LinearBiasGelu(g, in[0], in[1], in[2], kind);
              return Values{p.pre_F, p.h_F};
            },
            {x, w, bias});
        const auto backward = GpuKernelErrors(
            [kind](GraphBuilder& g, const Values& in) { return Values{LinearDxGelu(g, in[0], in[1], in[2], kind)}; },
            {x, down, pre});
        for (const auto& errors : {forward, backward}) {
          ASSERT_TRUE(errors.ok()) << errors.status();
          for (double e : *errors) EXPECT_LE(e, GpuTolerance(t));
        }
      }
    }
  }
}

TEST(CudaLinear, GradientOfGeluAndItsBias) {
  STRATA_NEEDS_GPU();
  for (const auto& [rows, k, f] : {std::tuple{43, 72, 344}, {5, 33, 7}, {300, 128, 272}}) {
    for (const GeluKind kind : {GeluKind::kTanh, GeluKind::kErf}) {
      for (const bool overwrite : {false, true}) {
        SCOPED_TRACE(absl::StrFormat("%d rows, K %d, F %d, %d", rows, k, f, static_cast<int>(kind)));
        ExpectClose(
            [kind](GraphBuilder& g, const Values& in) {
              const GeluGradient d = LinearDxGeluAcc(g, Acc(g, in[0]), in[1], in[2], in[3], kind, false);
              return Values{d.acc_F, d.dpre_F};
            },
            {Random({f}, 1), Random({2, rows, k}, 2), Random({k, f}, 3), Random({2, rows, f}, 4)},
            {.overwrite = overwrite});
      }
    }
  }
}

// What a product makes of its result is what a kernel over the result makes: so a recomputed activation repeats the bits.
TEST(CudaLinear, MakesOfItsResultWhatKernelsBehindItWould) {
  STRATA_NEEDS_GPU();
  const RopeAttributes rope{10000};
  const GraphFn fn = [&rope](GraphBuilder& g, const Values& in) {
    const Value x = in[0], w = in[1], bias = in[2], positions = in[3], pre = in[4];
    const GatedProduct gated = LinearSwiglu(g, x, w, w);
    const GeluProduct curved = LinearBiasGelu(g, x, w, bias, GeluKind::kTanh);
    const std::vector<Value> qkv = {w, w, w};
    const Value heads = SplitDim(g, LinearPacked(g, x, qkv), 2, 64);
    return Values{gated.h_F,
                  SwigluPacked(g, gated.gu_2F),
                  curved.h_F,
                  Gelu(g, curved.pre_F, GeluKind::kTanh),
                  LinearRope(g, x, positions, qkv, rope, 1, 64),
                  RopePacked(g, heads, positions, rope, 1),
                  LinearDxGelu(g, x, in[5], pre, GeluKind::kTanh),
                  GeluDx(g, LinearDx(g, x, in[5]), pre, GeluKind::kTanh)};
  };
  const int64_t k = 256, f = 512;
  std::vector<Tensor> inputs = {Random({2, 128, k}, 1), Tensor::Random(DType::kF64, {f, k}, 2, 0.1),
                                Random({f}, 3),         Tensor::RandomInts({128}, 0, 4096, 4),
                                Random({2, 128, f}, 5), Tensor::Random(DType::kF64, {k, f}, 6, 0.1)};
  const auto device = CudaDevice::Open(0);
  ASSERT_TRUE(device.ok()) << device.status();
  const KernelTable kernels = CudaKernels(Determinism::kBitExact);
  for (const DType t : {DType::kF32, DType::kBF16}) {
    for (Tensor& x : inputs) x = Converted(x, t);
    const auto out = Call(fn, inputs, {.kernels = &kernels, .device = device->get()});
    ASSERT_TRUE(out.ok()) << out.status();
    for (size_t i = 0; i < out->size(); i += 2) {
      EXPECT_TRUE((*out)[i].data == (*out)[i + 1].data) << Name(t) << ", output " << i;
      EXPECT_GT(MaxAbs((*out)[i]), 0.1);
    }
  }
}

}  // namespace
}  // namespace strata::testing
