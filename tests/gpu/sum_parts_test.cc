#include "core/ops/sum_parts.h"

#include "core/plan/sum_blocks.h"
#include "tests/testing/gpu.h"

namespace strata::testing {
namespace {

// The bits of the CPU: ranks of one job need not be alike.
TEST(CudaSumParts, HasTheBitsOfTheCpu) {
  STRATA_NEEDS_GPU();
  const GraphFn sum = [](GraphBuilder& g, const std::vector<Value>& in) {
    return std::vector<Value>{SumParts(g, in[0])};
  };
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t rows : {1, 2, 5}) {
      for (const int64_t columns : {1, 7, 1000, 4096}) {
        const auto errors = GpuKernelErrors(sum, {Tensor::Random(dtype, {rows, columns}, 3)});
        ASSERT_TRUE(errors.ok()) << errors.status();
        EXPECT_EQ(errors->at(0), 0) << Name(dtype) << " " << rows << " x " << columns;
      }
    }
  }
}

TEST(CudaSumBlocks, HasTheBitsOfTheCpu) {
  STRATA_NEEDS_GPU();
  for (const int64_t rows : {1, 2, 5}) {
    const GraphFn sum = [rows](GraphBuilder& g, const std::vector<Value>& in) {
      return std::vector<Value>{g.Add(std::make_shared<SumBlocksOp>(rows / 2), {in[0], in[1]})[0]};
    };
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      for (const int64_t columns : {1, 7, 1000, 4096}) {
        const Shape shape{3, rows, columns};
        const auto errors = GpuKernelErrors(sum, {Tensor::Random(dtype, shape, 3), Tensor::Random(dtype, shape, 4)});
        ASSERT_TRUE(errors.ok()) << errors.status();
        EXPECT_EQ(errors->at(0), 0) << Name(dtype) << " 3 x " << rows << " x " << columns;
      }
    }
  }
}

}  // namespace
}  // namespace strata::testing
