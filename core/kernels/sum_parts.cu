// y = ((x_0 + x_1) + x_2) + ..., over the rows of x, in float32: the bits of the CPU.
#include "core/kernels/cuda_util.cuh"
#include "core/kernels/sum_parts_cuda.h"

namespace strata {
namespace {

constexpr int kThreads = 256;

template <typename T, int kWidth>
__global__ void __launch_bounds__(kThreads) SumParts(const T* x, int64_t rows, int64_t columns, float* y) {
  const int64_t at = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kWidth;
  if (at >= columns) return;
  float sum[kWidth], next[kWidth];
  LoadFloats<kWidth>(x + at, sum);
  for (int64_t r = 1; r < rows; ++r) {
    LoadFloats<kWidth>(x + r * columns + at, next);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) sum[j] = __fadd_rn(sum[j], next[j]);
  }
  StoreFloats<kWidth>(y + at, sum);
}

template <typename T>
absl::Status RunSumParts(const KernelArgs& a) {
  constexpr int kWide = 8;
  const int64_t rows = a.in[0].shape[0], columns = a.in[0].shape[1];
  const T* const x = a.in[0].as<const T>();
  float* const y = a.out[0].as<float>();
  const auto launch = [&](auto kernel, int width) {
    const int64_t threads = (columns + width - 1) / width;
    const auto blocks = static_cast<unsigned>((threads + kThreads - 1) / kThreads);
    kernel<<<blocks, kThreads, 0, StreamOf(a)>>>(x, rows, columns, y);
  };
  if (columns == 0) return absl::OkStatus();
  if (columns % kWide == 0 && Aligned16({x, y})) {
    launch(SumParts<T, kWide>, kWide);
  } else {
    launch(SumParts<T, 1>, 1);
  }
  return Launched("sum_parts");
}

}  // namespace

void AddCudaSumPartsKernels(KernelTable& table) {
  table.Add("sum_parts", DType::kF32, {.run = RunSumParts<float>});
  table.Add("sum_parts", DType::kBF16, {.run = RunSumParts<CudaBF16>});
}

}  // namespace strata
