#include "core/ops/rope.h"

#include "core/ops/document_positions.h"
#include "core/ops/fused.h"
#include "tests/testing/gpu.h"

namespace strata::testing {
namespace {

using Values = std::vector<Value>;

struct Sizes {
  int64_t b, s, heads, d;
};
constexpr Sizes kSizes[] = {{2, 9, 12, 128}, {1, 33, 12, 64}, {2, 5, 12, 6}, {1, 3, 12, 2}, {1, 2, 12, 512}};

TEST(CudaRope, TurnsForthAndBack) {
  STRATA_NEEDS_GPU();
  for (const auto& [b, s, heads, d] : kSizes) {
    const Tensor x = Tensor::Random(DType::kF64, {b, s, heads, d}, 1),
                 positions = Tensor::RandomInts({s}, 0, 100000, 2);
    SCOPED_TRACE(ToString(x.shape));
    for (const RopeDirection direction : {RopeDirection::kForward, RopeDirection::kInverse}) {
      ExpectGpuClose(
          [&](GraphBuilder& g, const Values& in) { return Values{Rope(g, in[0], in[1], 500000, direction)}; },
          {x, positions});
    }
  }
}

TEST(CudaRope, PackedTurnsQueriesAndKeysOnly) {
  STRATA_NEEDS_GPU();
  for (const auto& [b, s, heads, d] : kSizes) {
    const Tensor x = Tensor::Random(DType::kF64, {b, s, heads, d}, 1), positions = Tensor::RandomInts({s}, 0, 4096, 2);
    SCOPED_TRACE(ToString(x.shape));
    for (const int64_t group : {1, 4}) {  // 4 | 4 | 4 heads, 8 | 2 | 2 heads
      for (const bool in_place : {false, true}) {
        const RopeAttributes rope{10000, in_place ? RopeDirection::kInverse : RopeDirection::kForward};
        ExpectGpuClose(
            [&](GraphBuilder& g, const Values& in) { return Values{RopePacked(g, in[0], in[1], rope, group)}; },
            {x, positions}, {.in_place = in_place});
      }
    }
  }
}

TEST(CudaRope, ScaledFrequencies) {
  STRATA_NEEDS_GPU();
  const RopeAttributes rope{.theta = 500000, .scaling = {.factor = 8, .low = 1, .high = 4, .original = 64}};
  ExpectGpuClose(
      [&](GraphBuilder& g, const Values& in) {
        return Values{Rope(g, in[0], in[1], rope), RopePacked(g, in[0], in[1], rope, 1)};
      },
      {Tensor::Random(DType::kF64, {2, 7, 6, 32}, 1), Tensor::RandomInts({7}, 0, 512, 2)});
}

TEST(CudaDocumentPositions, AreThoseOfTheCpu) {
  STRATA_NEEDS_GPU();
  for (const int64_t s : {1, 7, 1000}) {
    const auto errors =
        GpuKernelErrors([](GraphBuilder& g, const Values& in) { return Values{DocumentPositions(g, in[0], in[1])}; },
                        {Tensor::RandomInts({s}, 0, 4096, 1), Tensor::RandomInts({3, s}, 0, 4096, 2)});
    ASSERT_TRUE(errors.ok()) << errors.status();
    EXPECT_EQ(errors->at(0), 0) << s;
  }
}

TEST(CudaRope, PositionsOfEveryRow) {
  STRATA_NEEDS_GPU();
  ExpectGpuClose(
      [](GraphBuilder& g, const Values& in) {
        return Values{Rope(g, in[0], in[1], 10000), RopePacked(g, in[0], in[1], RopeAttributes{}, 1)};
      },
      {Tensor::Random(DType::kF64, {3, 7, 6, 32}, 1), Tensor::RandomInts({3, 7}, 0, 4096, 2)});
}

}  // namespace
}  // namespace strata::testing
