#include "core/ops/move.h"

#include "core/ops/bias.h"
#include "core/ops/dropout.h"
#include "core/ops/fused.h"
#include "core/plan/swap_blocks.h"
#include "tests/testing/gpu.h"

namespace strata::testing {
namespace {

using Values = std::vector<Value>;

Tensor Random(Shape shape, uint64_t seed) { return Tensor::Random(DType::kF64, shape, seed); }

constexpr Shape kShapes[] = {{4, 6, 10}, {2, 6, 64}, {6, 2, 3}, {6, 34, 128}};

TEST(CudaMove, CutsAndJoins) {
  STRATA_NEEDS_GPU();
  for (const Shape& shape : kShapes) {
    SCOPED_TRACE(ToString(shape));
    const Tensor x = Random(shape, 1), y = Random(shape, 2);
    for (int dim = 0; dim < 2; ++dim) {
      ExpectGpuClose(
          [dim](GraphBuilder& g, const Values& in) {
            return Values{Slice(g, in[0], dim, 1, 2), PadSlice(g, in[0], dim, 2, 3),
                          Concat(g, {in[0], in[1], in[0]}, dim)};
          },
          {x, y});
    }
    ExpectGpuClose(
        [](GraphBuilder& g, const Values& in) {
          return Values{PadSlice(g, in[0], 2, 0, 2), Concat(g, {in[0], in[1]}, 2),
                        g.Add(std::make_shared<SwapBlocksOp>(), {in[0]})[0]};
        },
        {x, y});
  }
}

TEST(CudaMove, HeadsSideBySide) {
  STRATA_NEEDS_GPU();
  for (const int64_t d : {64, 3}) {
    const Tensor q = Random({2, 5, 4, d}, 1), k = Random({2, 5, 2, d}, 2), v = Random({2, 5, 2, d}, 3);
    const auto errors = GpuErrors(
        [](GraphBuilder& g, const Values& in) {
          const Value packed = HeadsPacked(g, in[0], in[1], in[2]);
          const SplitHeads apart = HeadsUnpacked(g, packed, 2);
          return Values{packed, apart.q_BSHD, apart.k_BSHD, apart.v_BSHD};
        },
        {q, k, v}, DType::kBF16);
    ASSERT_TRUE(errors.ok()) << errors.status();
    for (const double e : *errors) EXPECT_LE(e, GpuTolerance(DType::kBF16));
  }
}

// A third of dim 1, from where the output's origin says.
class ThirdOp final : public Op {
 public:
  std::string_view name() const override { return "slice_shard"; }
  absl::StatusOr<std::vector<TensorSpec>> Infer(std::span<const TensorSpec> in) const override {
    TensorSpec out = in[0];
    out.shape[1] /= 3;
    return std::vector{out};
  }
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec>) const override { return {}; }
};

TEST(CudaMove, CutsAShard) {
  STRATA_NEEDS_GPU();
  for (const int64_t inner : {3, 16}) {
    const auto errors =
        GpuKernelErrors([](GraphBuilder& g, const Values& in) { return g.Add(std::make_shared<ThirdOp>(), {in[0]}); },
                        {Tensor::Random(DType::kF32, {2, 6, inner}, 1)},
                        [](std::span<TensorRef> in, std::span<TensorRef> out) {
                          in[0].origin[1] = 10;
                          out[0].origin[1] = 12;
                        });
    ASSERT_TRUE(errors.ok()) << errors.status();
    EXPECT_EQ((*errors)[0], 0);
  }
}

TEST(CudaMove, Casts) {
  STRATA_NEEDS_GPU();
  for (const int64_t n : {5, 4096, 4099}) {
    ExpectGpuClose(
        [](GraphBuilder& g, const Values& in) {
          return Values{Cast(g, in[0], DType::kF32), Cast(g, in[0], DType::kBF16)};
        },
        {Random({n}, 1)});
  }
}

TEST(CudaMove, SumsAndRepeats) {
  STRATA_NEEDS_GPU();
  for (const Shape& shape : {Shape{3, 100, 7}, Shape{2, 5, 64}, Shape{40, 3, 50}}) {
    SCOPED_TRACE(ToString(shape));
    const Tensor x = Random(shape, 1);
    for (int dim = 0; dim < 3; ++dim) {
      ExpectGpuClose(
          [dim](GraphBuilder& g, const Values& in) {
            const Value sum = ReduceSum(g, in[0], dim);
            return Values{sum, Broadcast(g, sum, in[0], dim)};
          },
          {x});
    }
    ExpectGpuClose(
        [](GraphBuilder& g, const Values& in) {
          const Value sum = ReduceSumAll(g, in[0]);
          return Values{sum, BroadcastAll(g, sum, in[0])};
        },
        {x});
  }
}

TEST(CudaBias, AddsAndSums) {
  STRATA_NEEDS_GPU();
  for (const auto& [rows, n] : {std::pair<int64_t, int64_t>{5, 7}, {1, 8}, {300, 264}, {3000, 40}, {700, 3072}}) {
    SCOPED_TRACE(n);
    ExpectGpuClose(
        [](GraphBuilder& g, const Values& in) {
          return Values{BiasAdd(g, in[0], in[1]), BiasGrad(g, in[0])};
        },
        {Random({2, rows, n}, 1), Random({n}, 2)});
  }
}

TEST(CudaDropout, HasTheMasksOfTheCpu) {
  STRATA_NEEDS_GPU();
  StepScalars scalars;
  scalars.seed = 5;
  scalars.step = 3;
  for (const int64_t e : {10, 96, 1024}) {
    const std::vector<Tensor> in = {Random({3, 17, e}, 1), Tensor::RandomInts({3}, 0, 1000, 2),
                                    Tensor::RandomInts({17}, 0, 1000, 3)};
    for (const double rate : {0.0, 0.1, 0.5}) {
      ExpectGpuClose(
          [rate](GraphBuilder& g, const Values& in) {
            return Values{Dropout(g, in[0], in[1], in[2], rate), Dropout(g, in[0], in[1], in[2], rate, 77)};
          },
          in, {.scalars = scalars});
    }
    for (const int64_t first : {3, 8}) {
      std::vector<Tensor> narrow = in;
      narrow[0] = Converted(in[0], DType::kF32);
      const auto errors = GpuKernelErrors(
          [](GraphBuilder& g, const Values& in) { return Values{Dropout(g, in[0], in[1], in[2], 0.3)}; }, narrow,
          [first](std::span<TensorRef> in, std::span<TensorRef>) { in[0].origin[2] = first; }, {.scalars = scalars});
      ASSERT_TRUE(errors.ok()) << errors.status();
      EXPECT_LE((*errors)[0], GpuTolerance(DType::kF32));
    }
  }
}

}  // namespace
}  // namespace strata::testing
