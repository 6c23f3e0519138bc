#pragma once
// An optimizer's update of flat buckets, element by element: w, its states and the bf16 live weights in place, by gradients of
// float32 or bf16. Every thread has 4 adjacent elements: 16-byte accesses to each float32 tensor. Nothing is written where StepScalars::skip_update is set
// or the norm is not finite.

#include <algorithm>

#include "core/kernels/cuda_util.cuh"
#include "core/ops/optimizer.h"

namespace strata {

template <int kStates, typename Grad>
struct Buckets {
  float* w;
  const Grad* grad;
  float* state[kStates];
  const float* norm;  // of one element
  CudaBF16* live;     // null: none
};

// 4 adjacent values, in one access.
__device__ __forceinline__ void LoadFour(const float* p, float (&x)[4]) { LoadFloats(p, x); }
__device__ __forceinline__ void LoadFour(const CudaBF16* p, float (&x)[4]) {
  const uint2 pairs = *reinterpret_cast<const uint2*>(p);
  x[0] = __uint_as_float(pairs.x << 16);
  x[1] = __uint_as_float(pairs.x & 0xffff0000u);
  x[2] = __uint_as_float(pairs.y << 16);
  x[3] = __uint_as_float(pairs.y & 0xffff0000u);
}

// Where weights decay: kernels take so many ranges at once, as parameters.
struct DecaySegments {
  static constexpr int kMax = 64;
  int count = 0;
  int64_t begin[kMax], end[kMax];
  float decay[kMax];
};

inline constexpr int kUpdateThreads = 256, kUpdateTile = 4 * kUpdateThreads;
inline constexpr int64_t kUpdateBlocks = 8 * 132;  // each makes the step's constants once

// Elements [begin, end) of the buckets. Rule: constants = At(scalars, norm), made once a block; Update(constants, decay,
// grad, w, states).
template <typename Rule, typename Grad, bool kWide>
__global__ void __launch_bounds__(kUpdateThreads)
    UpdateKernel(const Rule rule, const __grid_constant__ DecaySegments segments, const Buckets<Rule::kStates, Grad> b,
                 const StepScalars* now, int64_t begin, int64_t end) {
  constexpr int kStates = Rule::kStates;
  __shared__ typename Rule::Constants made;
  const float norm = *b.norm;
  if (now->skip_update != 0 || !isfinite(norm)) return;
  if (threadIdx.x == 0) made = rule.At(*now, norm);
  __syncthreads();
  const typename Rule::Constants c = made;
  int first = 0;  // the first segment that ends in or after the tile
  for (int64_t tile = begin + blockIdx.x * int64_t{kUpdateTile}; tile < end; tile += gridDim.x * int64_t{kUpdateTile}) {
    while (first < segments.count && segments.end[first] <= tile) ++first;
    const int64_t at = tile + threadIdx.x * 4;
    if (at >= end) continue;
    const int n = static_cast<int>(min(int64_t{4}, end - at));
    const bool whole = kWide && n == 4;
    float w[4] = {}, grad[4] = {}, state[kStates][4] = {};
    if (whole) {
      LoadFour(b.w + at, w);
      LoadFour(b.grad + at, grad);
#pragma unroll
      for (int s = 0; s < kStates; ++s) LoadFour(b.state[s] + at, state[s]);
    } else {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (j >= n) continue;
        w[j] = b.w[at + j];
        grad[j] = ToFloat(b.grad[at + j]);
#pragma unroll
        for (int s = 0; s < kStates; ++s) state[s][j] = b.state[s][at + j];
      }
    }
    int k = first;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      while (k < segments.count && segments.end[k] <= at + j) ++k;
      const float decay = k < segments.count && segments.begin[k] <= at + j ? segments.decay[k] : 0.0f;
      float own[kStates];
#pragma unroll
      for (int s = 0; s < kStates; ++s) own[s] = state[s][j];
      Rule::Update(c, decay, grad[j], w[j], own);
#pragma unroll
      for (int s = 0; s < kStates; ++s) state[s][j] = own[s];
    }
    if (whole) {
      StoreFloats(b.w + at, w);
#pragma unroll
      for (int s = 0; s < kStates; ++s) StoreFloats(b.state[s] + at, state[s]);
      if (b.live != nullptr) {
        __nv_bfloat162 pair[2] = {__floats2bfloat162_rn(w[0], w[1]), __floats2bfloat162_rn(w[2], w[3])};
        *reinterpret_cast<uint2*>(b.live + at) = *reinterpret_cast<const uint2*>(pair);
      }
    } else {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        if (j >= n) continue;
        b.w[at + j] = w[j];
#pragma unroll
        for (int s = 0; s < kStates; ++s) b.state[s][at + j] = state[s][j];
        if (b.live != nullptr) b.live[at + j] = FromFloat<CudaBF16>(w[j]);
      }
    }
  }
}

// The buckets hold elements [origin, origin + count) of what the ranges are of.
template <typename Rule, typename Grad>
void LaunchUpdate(cudaStream_t stream, const Rule& rule, const Buckets<Rule::kStates, Grad>& b, const StepScalars* now,
                  int64_t origin, int64_t count, std::span<const DecayRange> ranges) {
  bool wide = Aligned16({b.w, b.grad, b.live});
  for (const float* s : b.state) wide = wide && Aligned16({s});
  const auto begin_of = [&](size_t r) { return std::clamp<int64_t>(ranges[r].range.offset - origin, 0, count); };
  const auto end_of = [&](size_t r) {
    return std::clamp<int64_t>(ranges[r].range.offset + ranges[r].range.count - origin, 0, count);
  };
  size_t next = 0;
  for (int64_t begin = 0; begin < count;) {
    while (next > 0 && end_of(next - 1) > begin) --next;
    DecaySegments segments;
    for (; next < ranges.size() && segments.count < DecaySegments::kMax; ++next) {
      if (begin_of(next) == end_of(next)) continue;
      segments.begin[segments.count] = begin_of(next);
      segments.end[segments.count] = end_of(next);
      segments.decay[segments.count++] = static_cast<float>(ranges[next].decay);
    }
    // Ranges that are left over begin in the next launch, at a whole vector.
    const int64_t end = next < ranges.size() ? begin_of(next) / 4 * 4 : count;
    const auto blocks = static_cast<unsigned>(std::min(Ceil(end - begin, kUpdateTile), kUpdateBlocks));
    if (wide) {
      UpdateKernel<Rule, Grad, true><<<blocks, kUpdateThreads, 0, stream>>>(rule, segments, b, now, begin, end);
    } else {
      UpdateKernel<Rule, Grad, false><<<blocks, kUpdateThreads, 0, stream>>>(rule, segments, b, now, begin, end);
    }
    begin = end;
  }
}

}  // namespace strata
