#pragma once
// Sums over the rows of tensors, the gradient of what is broadcast over rows, in two passes: every block of rows into its own
// row of the workspace, [blocks, sums, columns], then these in a fixed order.

#include <algorithm>

#include "core/kernels/cuda_util.cuh"
#include "core/kernels/dependent_launch.cuh"

namespace strata {

// Blocks that walk over rows: a fixed number, so that the bits do not depend on the GPU. H100 and H200 have 132
// multiprocessors.
inline constexpr int64_t kMultiprocessors = 132, kMaxRowBlocks = 2 * kMultiprocessors;

inline int64_t SumRowsWorkspace(int64_t columns, int64_t sums) {  // bytes
  return kMaxRowBlocks * columns * sums * static_cast<int64_t>(sizeof(float));
}

// The second pass: out.at[s][c] = sum over blocks of partial[block, s, c], or += where it adds.
template <int kSums, typename T = float>
struct SumsOut {
  T* at[kSums];
  bool adds = false;
};
template <int kSums, typename T>
__global__ void __launch_bounds__(1024)
    AddBlocks(const float* partial, int64_t blocks, int64_t columns, SumsOut<kSums, T> out) {
  __shared__ float sums[32][33];
  const int64_t width = columns * kSums, c = blockIdx.x * int64_t{32} + threadIdx.x;
  WaitForEarlier();
  float total = 0;
  if (c < width) {
#pragma unroll 8
    for (int64_t b = threadIdx.y; b < blocks; b += 32) total += partial[b * width + c];
  }
  sums[threadIdx.y][threadIdx.x] = total;
  __syncthreads();
  if (threadIdx.y > 0 || c >= width) return;
  total = 0;
#pragma unroll
  for (int i = 0; i < 32; ++i) total += sums[i][threadIdx.x];
#pragma unroll
  for (int s = 0; s < kSums; ++s) {
    if (c / columns != s) continue;
    T& sum = out.at[s][c - s * columns];
    sum = FromFloat<T>(out.adds ? ToFloat(sum) + total : total);
  }
}
template <int kSums, typename T>
void LaunchAddBlocks(cudaStream_t stream, const float* partial, int64_t blocks, int64_t columns, SumsOut<kSums, T> out,
                     Launch launch = Launch::kBehind) {
  if (columns == 0) return;
  // Launched() tells of errors.
  (void)LaunchKernel(launch, static_cast<unsigned>(Ceil(columns * kSums, 32)), dim3(32, 32), stream,
                     AddBlocks<kSums, T>, partial, blocks, columns, out);
}

// The first pass where nothing else walks over the rows. Load: __device__ void operator()(row, column,
// float (&x)[kSums][kWidth]) const gives what kWidth columns of a row add.
template <int kSums, int kWidth, typename Load>
__global__ void __launch_bounds__(256)
    SumBlock(Load load, int64_t rows, int64_t columns, int64_t block_rows, float* partial) {
  constexpr int kRows = 8;
  __shared__ float sums[kRows][32 * kWidth];  // transposed: neighbours in a warp are neighbours here
  const int64_t first = blockIdx.x * int64_t{32 * kWidth}, column = first + threadIdx.x * kWidth;
  const int64_t begin = blockIdx.y * block_rows, end = min(begin + block_rows, rows);
  float total[kSums][kWidth] = {};
  if (column < columns) {
#pragma unroll 4
    for (int64_t row = begin + threadIdx.y; row < end; row += kRows) {
      float x[kSums][kWidth];
      load(row, column, x);
#pragma unroll
      for (int s = 0; s < kSums; ++s) {
#pragma unroll
        for (int j = 0; j < kWidth; ++j) total[s][j] += x[s][j];
      }
    }
  }
#pragma unroll
  for (int s = 0; s < kSums; ++s) {
    __syncthreads();
#pragma unroll
    for (int j = 0; j < kWidth; ++j) sums[threadIdx.y][j * 32 + threadIdx.x] = total[s][j];
    __syncthreads();
    for (int i = threadIdx.y * 32 + threadIdx.x; i < 32 * kWidth; i += 256) {
      float sum = 0;
#pragma unroll
      for (int r = 0; r < kRows; ++r) sum += sums[r][i];
      const int64_t c = first + i % 32 * kWidth + i / 32;
      if (c < columns) partial[(blockIdx.y * int64_t{kSums} + s) * columns + c] = sum;
    }
  }
}

// Both passes. columns is a multiple of kWidth.
template <int kSums, int kWidth, typename Load, typename T>
void SumRows(cudaStream_t stream, const Load& load, int64_t rows, int64_t columns, void* workspace,
             SumsOut<kSums, T> out) {
  if (columns == 0) return;
  const int64_t across = Ceil(columns, 32 * kWidth);
  // At most 8 a multiprocessor, which has registers and threads for these: a few more would take as long again.
  const int64_t blocks =
      std::min({kMaxRowBlocks, std::max<int64_t>(8 * kMultiprocessors / across, 1), Ceil(rows, 8) + 1});
  float* const partial = static_cast<float*>(workspace);
  SumBlock<kSums, kWidth>
      <<<dim3(static_cast<unsigned>(across), static_cast<unsigned>(blocks)), dim3(32, 8), 0, stream>>>(
          load, rows, columns, Ceil(rows, blocks), partial);
  LaunchAddBlocks<kSums>(stream, partial, blocks, columns, out);
}

template <typename T, int kWidth>
struct RowOf {
  const T* x;
  int64_t columns;
  __device__ void operator()(int64_t row, int64_t column, float (&sum)[1][kWidth]) const {
    LoadFloats(x + row * columns + column, sum[0]);
  }
};
// Of x[rows, columns] as it is.
template <typename T, typename Out>
void SumRowsOf(cudaStream_t stream, const T* x, int64_t rows, int64_t columns, void* workspace,
               const SumsOut<1, Out>& out) {
  if (columns % 8 == 0 && Aligned16({x})) {
    SumRows<1, 8>(stream, RowOf<T, 8>{x, columns}, rows, columns, workspace, out);
  } else {
    SumRows<1, 1>(stream, RowOf<T, 1>{x, columns}, rows, columns, workspace, out);
  }
}

}  // namespace strata
