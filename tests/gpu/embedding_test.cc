#include "core/ops/embedding.h"

#include "core/ops/fused.h"
#include "core/ops/move.h"
#include "tests/testing/gpu.h"

namespace strata::testing {
namespace {

using Values = std::vector<Value>;

struct Sizes {
  int64_t v, e, b, s;
};
// Odd and even widths; one, two and three digits of a row; runs of one row that are short, long, and everything there is.
constexpr Sizes kSizes[] = {{300, 9, 4, 300}, {300, 768, 2, 150}, {7, 264, 3, 400}, {70000, 8, 4, 500},
                            {1, 40, 2, 333},  {255, 16, 1, 1},    {11, 5, 1, 1000}};

// Some tokens lie outside of the table.
Tensor Tokens(const Sizes& n) { return Tensor::RandomInts({n.b, n.s}, n.v > 10 ? -3 : 0, n.v + 2, 1); }

TEST(CudaEmbedding, LooksUp) {
  STRATA_NEEDS_GPU();
  for (const Sizes& n : kSizes) {
    const auto errors = GpuErrors([](GraphBuilder& g, const Values& in) { return Values{Embedding(g, in[0], in[1])}; },
                                  {Tokens(n), Tensor::Random(DType::kF64, {n.v, n.e}, 2)}, DType::kBF16);
    ASSERT_TRUE(errors.ok()) << errors.status();
    EXPECT_EQ((*errors)[0], 0);
    ExpectGpuClose([](GraphBuilder& g, const Values& in) { return Values{Embedding(g, in[0], in[1])}; },
                   {Tokens(n), Tensor::Random(DType::kF64, {n.v, n.e}, 2)});
  }
}

TEST(CudaEmbedding, Gradient) {
  STRATA_NEEDS_GPU();
  for (const Sizes& n : kSizes) {
    SCOPED_TRACE(n.v);
    const Tensor table = Tensor::Random(DType::kF64, {n.v, n.e}, 2),
                 dy = Tensor::Random(DType::kF64, {n.b, n.s, n.e}, 3);
    ExpectGpuClose([](GraphBuilder& g, const Values& in) { return Values{EmbeddingDw(g, in[0], in[1], in[2])}; },
                   {Tokens(n), dy, table});
    for (const bool overwrite : {true, false}) {
      for (const bool always : {true, false}) {
        ExpectGpuClose(
            [always](GraphBuilder& g, const Values& in) {
              const Value acc = Cast(g, in[2], AccumulatorOf(g.spec(in[2]).dtype));
              return Values{EmbeddingDwAcc(g, acc, in[0], in[1], always)};
            },
            {Tokens(n), dy, table}, {.overwrite = overwrite});
      }
    }
  }
}

TEST(CudaEmbedding, ShardOfTheTable) {
  STRATA_NEEDS_GPU();
  const Tensor tokens = Tensor::RandomInts({2, 200}, 0, 300, 1), table = Tensor::Random(DType::kF32, {100, 24}, 2),
               dy = Tensor::Random(DType::kF32, {2, 200, 24}, 3);
  const auto look_up =
      GpuKernelErrors([](GraphBuilder& g, const Values& in) { return Values{Embedding(g, in[0], in[1])}; },
                      {tokens, table}, [](std::span<TensorRef> in, std::span<TensorRef>) { in[1].origin[0] = 150; });
  ASSERT_TRUE(look_up.ok()) << look_up.status();
  EXPECT_EQ((*look_up)[0], 0);
  const auto gradient = GpuKernelErrors(
      [](GraphBuilder& g, const Values& in) { return Values{EmbeddingDw(g, in[0], in[1], in[2])}; },
      {tokens, dy, table}, [](std::span<TensorRef>, std::span<TensorRef> out) { out[0].origin[0] = 150; });
  ASSERT_TRUE(gradient.ok()) << gradient.status();
  EXPECT_LE((*gradient)[0], GpuTolerance(DType::kF32));
}

}  // namespace
}  // namespace strata::testing
