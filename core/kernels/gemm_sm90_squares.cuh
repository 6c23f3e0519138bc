#pragma once
// The sum of squares of what a product of core/kernels/gemm_sm90.cuh writes: each thread adds up its own, over all tiles of its block, and a
// block leaves one part (core/ops/squares.h), so which tiles it has decides the order. What lies outside of D is zero, or not a number
// where operands are not finite; then so are elements of D.

#include "core/kernels/gemm_sm90_tile.cuh"
#include "core/ops/squares.h"

namespace strata::sm90 {

// The sum of a thread that multiplies. Registers are short, and it is needed once a tile.
__device__ __forceinline__ float& ThreadSquares() {
  __shared__ float of_threads[32 * kWarps];
  return of_threads[threadIdx.x - 128];
}

// Of pair(i), a float2, for i < kCount: two sums at a time, as an addition waits for the one before.
template <int kCount, typename Pair>
__device__ __forceinline__ void AddSquares(const Pair& pair) {
  float2 sum{};
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const float2 v = pair(i);
    sum.x = fmaf(v.x, v.x, sum.x);
    sum.y = fmaf(v.y, v.y, sum.y);
  }
  ThreadSquares() += sum.x + sum.y;
}
template <int kSums>
__device__ __forceinline__ void AddSquares(const float (&d)[kSums]) {
  AddSquares<kSums / 2>([&](int i) { return make_float2(d[2 * i], d[2 * i + 1]); });
}

// Once, by all threads that multiply, when they are done: the block's part of args.sums. Parts without a block are zero.
__device__ __forceinline__ void WriteSquares(const GemmArgs& args) {
  __shared__ float of_warps[kWarps];
  constexpr int kBarrier = 7;
  float sum = ThreadSquares();
#pragma unroll
  for (int i = 16; i > 0; i /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, i);
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32 - 4] = sum;
  NamedBarrier(kBarrier, 32 * kWarps);
  if (threadIdx.x != 128) return;
  sum = of_warps[0];
#pragma unroll
  for (int i = 1; i < kWarps; ++i) sum += of_warps[i];
  args.sums[blockIdx.x] = sum;
  for (int i = blockIdx.x + gridDim.x; i < kSquareParts; i += gridDim.x) args.sums[i] = 0;
}

}  // namespace strata::sm90
