#pragma once
// The sum of squares of ranges of a flat tensor: ranges are cut into tiles, and blocks take tiles in turn, whose threads do
// not wait for each other: each adds its float32 sums of tiles in float64. Blocks leave one float64 each, and a last block
// adds these. The order is fixed, and does not depend on the GPU.

#include <algorithm>

#include "core/kernels/cuda_util.cuh"
#include "core/kernels/sum_in_order.cuh"
#include "core/ops/optimizer.h"

namespace strata {

inline constexpr int64_t kSquareTile = 8192, kSquareBlocks = 4 * 132;
inline constexpr int kSquareThreads = 256;

struct SquareRanges {
  static constexpr int kMax = 64;  // of one launch
  int count = 0;
  int64_t offset[kMax], size[kMax], first_tile[kMax + 1] = {};

  // What `range` has of elements [origin, origin + stored) of its tensor, which begin at `base`. Not to a full one.
  void Add(const FlatRange& range, int64_t origin, int64_t stored, int64_t base) {
    const int64_t begin = std::clamp<int64_t>(range.offset - origin, 0, stored),
                  end = std::clamp<int64_t>(range.offset + range.count - origin, 0, stored);
    offset[count] = base + begin;
    size[count] = end - begin;
    first_tile[count + 1] = first_tile[count] + Ceil(end - begin, kSquareTile);
    ++count;
  }
  bool full() const { return count == kMax; }
};

template <typename T>
__device__ __forceinline__ void AddSquares(const Vec<T>& v, float& sum) {
#pragma unroll
  for (int j = 0; j < Vec<T>::kSize; ++j) sum += v[j] * v[j];
}

// A thread's part of the n elements of a tile; of a whole one all loads are on their way at once.
template <typename T>
__device__ __forceinline__ float SquaresOf(const T* x, int64_t n) {
  constexpr int kSize = Vec<T>::kSize, kStep = kSquareThreads * kSize, kLoads = kSquareTile / kStep;
  const T* const own = x + threadIdx.x * kSize;
  float sum = 0;
  int64_t body = 0;
  if (reinterpret_cast<uintptr_t>(x) % 16 == 0) {
    if (n == kSquareTile) {
      Vec<T> v[kLoads];
#pragma unroll
      for (int i = 0; i < kLoads; ++i) v[i] = LoadVec(own + i * kStep);
#pragma unroll
      for (int i = 0; i < kLoads; ++i) AddSquares(v[i], sum);
      return sum;
    }
    body = n / kSize * kSize;
    for (int64_t i = threadIdx.x * kSize; i < body; i += kStep) AddSquares(LoadVec(x + i), sum);
  }
  for (int64_t i = body + threadIdx.x; i < n; i += kSquareThreads) sum += ToFloat(x[i]) * ToFloat(x[i]);
  return sum;
}

template <int kThreads, typename T>
__global__ void __launch_bounds__(kThreads)
    SquareTiles(const T* x, const __grid_constant__ SquareRanges ranges, double* sums) {
  __shared__ double shared[32];
  double total = 0;
  int r = 0;
  for (int64_t tile = blockIdx.x; tile < ranges.first_tile[ranges.count]; tile += gridDim.x) {
    while (ranges.first_tile[r + 1] <= tile) ++r;
    const int64_t begin = (tile - ranges.first_tile[r]) * kSquareTile;
    total += SquaresOf(x + ranges.offset[r] + begin, min(kSquareTile, ranges.size[r] - begin));
  }
  total = BlockSum(total, shared);
  if (threadIdx.x == 0) sums[blockIdx.x] = total;
}

inline int64_t SquareLaunches(std::span<const FlatRange> ranges) {
  return Ceil(std::ssize(ranges), SquareRanges::kMax);
}
inline int64_t SumSquaresWorkspace(std::span<const FlatRange> ranges) {  // bytes
  return SquareLaunches(ranges) * kSquareBlocks * static_cast<int64_t>(sizeof(double));
}

// x: elements [origin, origin + count) of the flat tensor that the ranges are of.
template <typename T>
void LaunchSumSquares(cudaStream_t stream, const T* x, int64_t origin, int64_t count, std::span<const FlatRange> ranges,
                      double* sums, float* out) {
  const int64_t launches = SquareLaunches(ranges);
  for (int64_t l = 0; l < launches; ++l) {
    SquareRanges part;
    for (const FlatRange& r : ranges.subspan(l * SquareRanges::kMax)) {
      if (part.full()) break;
      part.Add(r, origin, count, 0);
    }
    SquareTiles<kSquareThreads>
        <<<static_cast<unsigned>(kSquareBlocks), kSquareThreads, 0, stream>>>(x, part, sums + l * kSquareBlocks);
  }
  SumInOrder<<<1, kSumThreads, 0, stream>>>(Stored{sums}, launches * kSquareBlocks, out);
}

}  // namespace strata
