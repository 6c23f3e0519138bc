#pragma once
// Sums of many numbers by one block, in float64 and a fixed order.

#include "core/kernels/cuda_util.cuh"

namespace strata {

inline constexpr int kSumThreads = 1024;

// *out = the sum of fn(i), a double, over i < count.
template <typename Fn, typename Out>
__global__ void __launch_bounds__(kSumThreads) SumInOrder(Fn fn, int64_t count, Out* out) {
  __shared__ double shared[32];
  double sum = 0;
  for (int64_t i = threadIdx.x; i < count; i += kSumThreads) sum += fn(i);
  sum = BlockSum(sum, shared);
  if (threadIdx.x == 0) *out = FromFloat<Out>(static_cast<float>(sum));
}

struct Stored {
  const double* values;
  __device__ double operator()(int64_t i) const { return values[i]; }
};

}  // namespace strata
