// sum_parts and sum_blocks: y = ((x_0 + x_1) + x_2) + ..., over the rows of each block of x, in float32: the bits of the CPU.
#include "core/kernels/cuda_util.cuh"
#include "core/kernels/sum_parts_cuda.h"
#include "core/plan/sum_blocks.h"

namespace strata {
namespace {

constexpr int kThreads = 256;

// x[blocks, rows, columns], y[blocks, columns]; a block is gridDim.y's. Row `own` lies in the same place of `other`, which y may overwrite.
template <typename T, typename Y, int kWidth>
__global__ void __launch_bounds__(kThreads)
    SumRows(const T* x, const T* other, int64_t own, int64_t rows, int64_t columns, Y* y) {
  const int64_t at = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kWidth;
  if (at >= columns) return;
  const int64_t block = blockIdx.y * rows * columns + at;
  float sum[kWidth], next[kWidth];
  LoadFloats<kWidth>((own == 0 ? other : x) + block, sum);
  for (int64_t r = 1; r < rows; ++r) {
    LoadFloats<kWidth>((own == r ? other : x) + block + r * columns, next);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) sum[j] = __fadd_rn(sum[j], next[j]);
  }
  StoreFloats<kWidth>(y + blockIdx.y * columns + at, sum);
}

struct Rows {
  int64_t blocks, rows, columns;
};

template <typename T, typename Y>
absl::Status Sum(const KernelArgs& a, const T* other, int64_t own, const Rows& r) {
  constexpr int kWide = 8;
  const T* const x = a.in[0].as<const T>();
  Y* const y = a.out[0].as<Y>();
  const auto launch = [&](auto kernel, int width) {
    const int64_t threads = (r.columns + width - 1) / width;
    const dim3 grid(static_cast<unsigned>((threads + kThreads - 1) / kThreads), static_cast<unsigned>(r.blocks));
    kernel<<<grid, kThreads, 0, StreamOf(a)>>>(x, other, own, r.rows, r.columns, y);
  };
  if (r.columns == 0 || r.blocks == 0) return absl::OkStatus();
  if (r.columns % kWide == 0 && Aligned16({x, y, other})) {
    launch(SumRows<T, Y, kWide>, kWide);
  } else {
    launch(SumRows<T, Y, 1>, 1);
  }
  return Launched("sum of parts");
}

template <typename T>
absl::Status RunSumParts(const KernelArgs& a) {
  return Sum<T, float>(a, nullptr, -1, {1, a.in[0].shape[0], a.in[0].shape[1]});
}

template <typename T>
absl::Status RunSumBlocks(const KernelArgs& a) {
  const Shape& s = a.in[0].shape;
  const int64_t me = static_cast<const SumBlocksOp&>(a.op).me();
  return Sum<T, T>(a, a.in[SumBlocksOp::kSent].as<const T>(), me, {s[0], s[1], s[2]});
}

}  // namespace

void AddCudaSumPartsKernels(KernelTable& table) {
  table.Add("sum_parts", DType::kF32, {.run = RunSumParts<float>});
  table.Add("sum_parts", DType::kBF16, {.run = RunSumParts<CudaBF16>});
  table.Add("sum_blocks", DType::kF32, {.run = RunSumBlocks<float>});
  table.Add("sum_blocks", DType::kBF16, {.run = RunSumBlocks<CudaBF16>});
}

}  // namespace strata
