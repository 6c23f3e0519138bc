#include "core/ops/elementwise.h"

#include "core/ops/fused.h"
#include "core/ops/gelu.h"
#include "core/ops/move.h"
#include "tests/testing/gpu.h"

namespace strata::testing {
namespace {

using Values = std::vector<Value>;

Tensor Random(Shape shape, uint64_t seed) { return Tensor::Random(DType::kF64, shape, seed, 2.0); }

constexpr int64_t kCounts[] = {1, 7, 8, 24, 2051, 4096};  // tails, whole vectors, both

// Out of place and, where the op may, in place.
void ExpectClose(const GraphFn& fn, const std::vector<Tensor>& inputs) {
  for (const bool in_place : {false, true}) ExpectGpuClose(fn, inputs, {.in_place = in_place});
}

TEST(CudaElementwise, Plain) {
  STRATA_NEEDS_GPU();
  for (const int64_t n : kCounts) {
    SCOPED_TRACE(n);
    const Tensor a = Random({n}, 1), b = Random({n}, 2);
    ExpectClose([](GraphBuilder& g, const Values& in) { return Values{Add(g, in[0], in[1])}; }, {a, b});
    ExpectClose([](GraphBuilder& g, const Values& in) { return Values{Mul(g, in[0], in[1])}; }, {a, b});
    ExpectClose([](GraphBuilder& g, const Values& in) { return Values{Scale(g, in[0], -0.3)}; }, {a});
  }
}

TEST(CudaElementwise, Activations) {
  STRATA_NEEDS_GPU();
  for (const int64_t n : kCounts) {
    SCOPED_TRACE(n);
    const Tensor a = Random({n}, 1), b = Random({n}, 2), c = Random({n}, 3);
    ExpectClose([](GraphBuilder& g, const Values& in) { return Values{Silu(g, in[0])}; }, {a});
    ExpectClose([](GraphBuilder& g, const Values& in) { return Values{SiluDx(g, in[0], in[1])}; }, {a, b});
    ExpectClose([](GraphBuilder& g, const Values& in) { return Values{Swiglu(g, in[0], in[1])}; }, {a, b});
    ExpectClose(
        [](GraphBuilder& g, const Values& in) {
          const SwigluGrads d = SwigluDx(g, in[0], in[1], in[2]);
          return Values{d.gate, d.up};
        },
        {a, b, c});
    for (const GeluKind kind : {GeluKind::kErf, GeluKind::kTanh}) {
      ExpectClose([kind](GraphBuilder& g, const Values& in) { return Values{Gelu(g, in[0], kind)}; }, {a});
      ExpectClose([kind](GraphBuilder& g, const Values& in) { return Values{GeluDx(g, in[0], in[1], kind)}; }, {a, b});
    }
  }
}

TEST(CudaElementwise, ActivationsFarFromZero) {
  STRATA_NEEDS_GPU();
  const Tensor x = Tensor::Of({8}, {-1e4, -100, -50, -20, 20, 50, 100, 1e4}),
               dy = Tensor::Of({8}, {1, -1, 1, -1, 1, -1, 1, -1});
  ExpectClose(
      [](GraphBuilder& g, const Values& in) {
        return Values{Silu(g, in[0]), SiluDx(g, in[1], in[0])};
      },
      {x, dy});
  for (const GeluKind kind : {GeluKind::kErf, GeluKind::kTanh}) {
    ExpectClose(
        [kind](GraphBuilder& g, const Values& in) {
          return Values{Gelu(g, in[0], kind), GeluDx(g, in[1], in[0], kind)};
        },
        {x, dy});
  }
}

TEST(CudaElementwise, PackedSwiglu) {
  STRATA_NEEDS_GPU();
  for (const int64_t f : {7, 8, 344}) {
    SCOPED_TRACE(f);
    const Tensor y = Random({3, 11, 2 * f}, 1), dh = Random({3, 11, f}, 2);
    ExpectClose([](GraphBuilder& g, const Values& in) { return Values{SwigluPacked(g, in[0])}; }, {y});
    ExpectClose([](GraphBuilder& g, const Values& in) { return Values{SwigluPackedDx(g, in[0], in[1])}; }, {dh, y});
  }
}

TEST(CudaElementwise, AccumulatesInFloat) {
  STRATA_NEEDS_GPU();
  for (const int64_t n : kCounts) {
    for (const bool overwrite : {true, false}) {
      ExpectGpuClose(
          [](GraphBuilder& g, const Values& in) {
            return Values{Accumulate(g, Cast(g, in[0], AccumulatorOf(g.spec(in[0]).dtype)), in[1])};
          },
          {Random({n}, 1), Random({n}, 2)}, {.overwrite = overwrite});
    }
  }
}

}  // namespace
}  // namespace strata::testing
