#include "core/ops/squares.h"

#include <limits>

#include "absl/strings/str_format.h"
#include "core/ops/fused.h"
#include "core/ops/move.h"
#include "tests/testing/gpu.h"

namespace strata::testing {
namespace {

using Values = std::vector<Value>;

Tensor Random(Shape shape, uint64_t seed) { return Tensor::Random(DType::kF64, shape, seed); }
Value Acc(GraphBuilder& g, Value v) { return Cast(g, v, AccumulatorOf(g.spec(v).dtype)); }

// What parts add up to: they are not the CPU's.
TEST(CudaSquares, PartsAddUp) {
  STRATA_NEEDS_GPU();
  for (const int64_t n : {1, 527, 4096, 100'003, 3'000'000}) {
    SCOPED_TRACE(n);
    for (const DType t : {DType::kF32, DType::kBF16}) {
      const auto errors =
          GpuErrors([](GraphBuilder& g, const Values& in) { return Values{TotalSquares(g, SquareParts(g, in), {})}; },
                    {Random({n}, 1)}, t);
      ASSERT_TRUE(errors.ok()) << errors.status();
      EXPECT_LE(errors->front(), GpuTolerance(DType::kF32)) << Name(t);
    }
  }
}

TEST(CudaSquares, TotalOfRangesOfManyTensors) {
  STRATA_NEEDS_GPU();
  std::vector<FlatRange> many;  // more than one launch takes, of odd offsets and counts, some empty
  for (int64_t i = 0; i < 150; ++i) many.push_back({i * 60 + i % 7, i % 11 == 0 ? 0 : 37 + i % 5});
  const std::vector<std::vector<FlatRange>> ranges = {
      many, {}, {{0, 7}, {64, 40'000}, {50'001, 33'333}}, {{0, 100'000}}};
  const std::vector<Tensor> in = {Random({2 * kSquareParts}, 1), Random({10'000}, 2), Random({8}, 3),
                                  Random({100'003}, 4), Random({100'000}, 5)};
  for (const bool mixed : {false, true}) {  // with flat tensors of bf16 among those of f32
    std::vector<Tensor> operands;
    for (size_t i = 0; i < in.size(); ++i) {
      operands.push_back(Converted(in[i], mixed && i > 0 && i % 2 == 0 ? DType::kBF16 : DType::kF32));
    }
    if (mixed) operands[1] = Converted(in[1], DType::kBF16);  // more ranges than a launch takes, too
    const auto errors = GpuKernelErrors(
        [&](GraphBuilder& g, const Values& v) {
          std::vector<SquaredRanges> flats;
          for (size_t i = 0; i < ranges.size(); ++i) flats.push_back({v[1 + i], ranges[i]});
          return Values{TotalSquares(g, v[0], std::move(flats))};
        },
        operands);
    ASSERT_TRUE(errors.ok()) << errors.status();
    EXPECT_LE(errors->front(), GpuTolerance(DType::kF32)) << mixed;
  }
}

// The gradients, and their squares as they are stored: added to what was there too. Sizes that make two gradients adjacent.
TEST(CudaSquares, WeightGradientsAndTheirSquares) {
  STRATA_NEEDS_GPU();
  struct Case {
    int64_t b, s, k;
    std::vector<int64_t> n;
  };
  std::vector<Case> cases = {{3, 43, 200, {64, 8}}, {1, 5, 7, {3}}};
  if (!SmallShapes()) {
    cases.push_back({2, 32, 128, {64, 32}});
    cases.push_back({2, 256, 528, {1024, 512}});
  }
  for (const Case& c : cases) {
    int64_t width = 0;
    std::vector<Tensor> in;
    for (const int64_t n : c.n) {
      in.push_back(Random({n, c.k}, in.size()));
      width += n;
    }
    for (const Shape& shape : {Shape{kSquareParts}, Shape{c.b, c.s, width}, Shape{c.b, c.s, c.k}}) {
      in.push_back(Random(shape, in.size()));
    }
    // f32 gradients are overwritten or added to; bf16 ones are written once.
    for (const auto& [overwrite, rounded] : {std::pair{true, false}, {false, false}, {true, true}}) {
      const auto fn = [&, rounded = rounded](GraphBuilder& g, const Values& v) {
        Values accs;
        for (size_t i = 0; i < c.n.size(); ++i) accs.push_back(rounded ? v[i] : Acc(g, v[i]));
        const size_t at = accs.size();
        const SquaredSums sums = LinearDwAccSquares(g, accs, Acc(g, v[at]), v[at + 1], v[at + 2]);
        accs = sums.accs;
        accs.push_back(TotalSquares(g, sums.squares, {}));
        return accs;
      };
      for (const DType t : {DType::kF32, DType::kBF16}) {
        SCOPED_TRACE(absl::StrFormat("K %d, N %d, %d %d, %s", c.k, width, overwrite, rounded, Name(t)));
        const auto errors = GpuErrors(fn, in, t, {.overwrite = overwrite});
        ASSERT_TRUE(errors.ok()) << errors.status();
        for (double e : *errors) EXPECT_LE(e, GpuTolerance(t));
      }
    }
  }
}

// Rows without a token, of one and of many; some tokens lie outside of the table; widths of no 16 bytes.
TEST(CudaSquares, EmbeddingGradientsAndTheirSquares) {
  STRATA_NEEDS_GPU();
  struct Case {
    int64_t v, e, b, s;
  };
  constexpr Case kAll[] = {{300, 9, 4, 300},
                           {7, 264, 3, 400},
                           {70000, 8, 4, 500},
                           {1, 40, 2, 333},
                           {5000, 768, 2, 3000}},
                 kSmall[] = {{300, 9, 4, 300}, {7, 264, 3, 400}};
  for (const auto& [v, e, b, s] : ShapesOf(kAll, kSmall)) {
    for (const auto& [overwrite, rounded] : {std::pair{true, false}, {false, false}, {true, true}}) {
      SCOPED_TRACE(absl::StrFormat("%d rows of %d, %d %d", v, e, overwrite, rounded));
      const auto fn = [rounded = rounded](GraphBuilder& g, const Values& in) {
        const SquaredSums sums = EmbeddingDwAccSquares(g, rounded ? in[0] : Acc(g, in[0]), Acc(g, in[1]), in[2], in[3]);
        return Values{sums.accs[0], TotalSquares(g, sums.squares, {})};
      };
      ExpectGpuClose(fn,
                     {Random({v, e}, 1), Random({kSquareParts}, 2),
                      Tensor::RandomInts({b, s}, v > 10 ? -3 : 0, v + 2, 3), Random({b, s, e}, 4)},
                     {.overwrite = overwrite});
    }
  }
}

// A gradient that is not finite makes a norm by which a step is held back, whichever kernel sums it.
TEST(CudaSquares, AreNotFiniteWhereGradientsAreNot) {
  STRATA_NEEDS_GPU();
  for (const double bad : {double{INFINITY}, std::numeric_limits<double>::quiet_NaN()}) {
    Tensor dy = Random({2, 64, 256}, 4);
    dy.set(777, bad);
    for (const Determinism determinism : {Determinism::kFast, Determinism::kBitExact}) {
      const auto errors = GpuErrors(
          [](GraphBuilder& g, const Values& in) {
            const SquaredSums sums = LinearDwAccSquares(g, std::vector{Acc(g, in[0])}, Acc(g, in[1]), in[2], in[3]);
            return Values{Guard(g, Sqrt(g, TotalSquares(g, sums.squares, {})), Acc(g, in[4]))};
          },
          {Random({256, 512}, 1), Random({kSquareParts}, 3), dy, Random({2, 64, 512}, 5), Tensor::Of({}, {1})},
          DType::kBF16, {.determinism = determinism});
      ASSERT_TRUE(errors.ok()) << errors.status();
      EXPECT_EQ(errors->front(), 0);  // NaN, on both
    }
  }
}

}  // namespace
}  // namespace strata::testing
