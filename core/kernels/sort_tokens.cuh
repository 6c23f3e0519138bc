#pragma once
// Sorts tokens by their row of the local block of the vocabulary, stably: items row << 32 | index of the token. Tokens of
// other rows get the row `rows`, and so come last. A radix sort by one block: its 32 warps have an interval of the items each,
// and every digit of every warp its place in the result.

#include <bit>

#include "core/kernels/cuda_util.cuh"

namespace strata {

__host__ __device__ inline int64_t RowOfItem(uint64_t item) { return static_cast<int64_t>(item >> 32); }
__host__ __device__ inline int64_t TokenOfItem(uint64_t item) { return static_cast<int64_t>(item & 0xffffffffu); }

inline constexpr int kSortThreads = 1024, kSortWarps = kSortThreads / 32, kDigitBits = 8, kDigits = 1 << kDigitBits,
                     kSortBatch = 8;

// Turns place[digit][warp], counts, into the sums of all that come before: by digit, then by warp. Each thread has 8 of them.
__device__ inline void ExclusiveSums(int (&place)[kDigits][kSortWarps], int* warp_sums) {
  constexpr int kEach = kDigits * kSortWarps / kSortThreads;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int* const own = &place[0][0] + threadIdx.x * kEach;
  int counts[kEach], total = 0;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    counts[i] = own[i];
    total += counts[i];
  }
  int sum = total;
  for (int d = 1; d < 32; d *= 2) {
    const int before = __shfl_up_sync(0xffffffffu, sum, d);
    if (lane >= d) sum += before;
  }
  if (lane == 31) warp_sums[warp] = sum;
  __syncthreads();
  int start = sum - total;
  for (int w = 0; w < warp; ++w) start += warp_sums[w];
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    own[i] = start;
    start += counts[i];
  }
  __syncthreads();
}

template <int kThreads>
__global__ void __launch_bounds__(kThreads) SortTokens(const int32_t* tokens, int64_t count, int64_t first,
                                                       int64_t rows, int passes, uint64_t* odd, uint64_t* even) {
  __shared__ int place[kDigits][kSortWarps], warp_sums[kSortWarps];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t each = (count + kThreads - 1) / kThreads * 32;  // items a warp
  const int64_t begin = warp * each, end = min(begin + each, count);
  for (int pass = 0; pass < passes; ++pass) {
    const uint64_t* const from = pass % 2 == 0 ? even : odd;
    uint64_t* const to = pass % 2 == 0 ? odd : even;
    const int shift = 32 + pass * kDigitBits;
    const auto item = [&](int64_t i) -> uint64_t {
      if (i >= end) return 0;
      if (pass > 0) return from[i];
      const int64_t row = tokens[i] - first;
      return static_cast<uint64_t>(row >= 0 && row < rows ? row : rows) << 32 | static_cast<uint64_t>(i);
    };
    const auto digit = [&](uint64_t x) { return static_cast<int>(x >> shift) & (kDigits - 1); };
    for (int i = threadIdx.x; i < kDigits * kSortWarps; i += kThreads) (&place[0][0])[i] = 0;
    __syncthreads();
    for (int64_t base = begin; base < end; base += 32 * kSortBatch) {
      uint64_t x[kSortBatch];
#pragma unroll
      for (int b = 0; b < kSortBatch; ++b) x[b] = item(base + b * 32 + lane);
#pragma unroll
      for (int b = 0; b < kSortBatch; ++b) {
        if (base + b * 32 + lane < end) atomicAdd(&place[digit(x[b])][warp], 1);
      }
    }
    __syncthreads();
    ExclusiveSums(place, warp_sums);
    for (int64_t base = begin; base < end; base += 32 * kSortBatch) {
      uint64_t x[kSortBatch];
#pragma unroll
      for (int b = 0; b < kSortBatch; ++b) x[b] = item(base + b * 32 + lane);
#pragma unroll
      for (int b = 0; b < kSortBatch; ++b) {
        const bool valid = base + b * 32 + lane < end;
        const int d = digit(x[b]);
        const unsigned alike = __match_any_sync(0xffffffffu, valid ? d : kDigits);
        const int rank = __popc(alike & ((1u << lane) - 1));
        const int at = place[d][warp];
        __syncwarp();
        if (valid && rank == 0) place[d][warp] = at + __popc(alike);
        __syncwarp();
        if (valid) to[at + rank] = x[b];
      }
    }
    __syncthreads();
  }
}

inline int64_t SortTokensWorkspace(int64_t count) { return 2 * count * static_cast<int64_t>(sizeof(uint64_t)); }

// Returns the sorted items, in the workspace. There are fewer than 2^31 tokens and rows.
inline const uint64_t* LaunchSortTokens(cudaStream_t stream, const int32_t* tokens, int64_t count, int64_t first,
                                        int64_t rows, void* workspace) {
  uint64_t* const odd = static_cast<uint64_t*>(workspace);
  uint64_t* const even = odd + count;
  const int passes = static_cast<int>(Ceil(std::bit_width(static_cast<uint64_t>(rows)), kDigitBits));
  SortTokens<kSortThreads><<<1, kSortThreads, 0, stream>>>(tokens, count, first, rows, passes, odd, even);
  return passes % 2 == 1 ? odd : even;
}

}  // namespace strata
