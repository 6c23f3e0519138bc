#pragma once
// An optimizer's update of flat buckets, element by element: w, its states and the bf16 live weights in place, by gradients
// of float32 or bf16. Master: float, or uint16_t where w is in halves (JoinHalves), the upper ones the live weights. A thread has 4
// adjacent elements at a time: 16-byte accesses to each float32 tensor. Nothing is written where StepScalars::skip_update is set or the norm is not finite. Launched by update_launch.cuh.
//
// Rule: kStates; Constants = At(scalars, norm), made once a block; Decay(constants, decay), what Update takes of a decay;
// Update(constants, Decay(), grad, w, states). Its arithmetic leaves a compiler nothing to contract, so that elements round
// alike wherever they lie.

#include "core/kernels/cuda_util.cuh"
#include "core/ops/optimizer.h"

namespace strata {

template <int kStates, typename Grad, typename Master = float>
struct Buckets {
  Master* w;
  const Grad* grad;
  float* state[kStates];
  const float* norm;  // of one element
  CudaBF16* live;     // null: none
};

// Where weights decay: kernels take so many ranges at once, as parameters.
struct DecaySegments {
  static constexpr int kMax = 64;
  int count = 0;
  int64_t begin[kMax], end[kMax];
  float decay[kMax];

  // The first segment from k on that ends after `at`.
  __device__ __forceinline__ int After(int k, int64_t at) const {
    while (k < count && end[k] <= at) ++k;
    return k;
  }
};

inline constexpr int kUpdateThreads = 256, kUpdateTile = 4 * kUpdateThreads;

// 4 adjacent values, in one access.
__device__ __forceinline__ void LoadFour(const float* p, float (&x)[4]) { LoadFloats(p, x); }
__device__ __forceinline__ void LoadFour(const CudaBF16* p, float (&x)[4]) {
  const uint2 pairs = *reinterpret_cast<const uint2*>(p);
  x[0] = __uint_as_float(pairs.x << 16);
  x[1] = __uint_as_float(pairs.x & 0xffff0000u);
  x[2] = __uint_as_float(pairs.y << 16);
  x[3] = __uint_as_float(pairs.y & 0xffff0000u);
}

// As JoinHalves and SplitHalves, of two adjacent elements: lower halves in `low`, upper ones in `live`.
__device__ __forceinline__ void JoinPair(uint32_t live, uint32_t low, float& x, float& y) {
  x = __uint_as_float(((live - (low >> 15 & 1)) << 16) | (low & 0xffffu));
  y = __uint_as_float(((live >> 16) - (low >> 31)) << 16 | low >> 16);
}
__device__ __forceinline__ void SplitPair(float x, float y, uint32_t& live, uint32_t& low) {
  const uint32_t a = __float_as_uint(x), b = __float_as_uint(y);
  live = __byte_perm(a + 0x8000u, b + 0x8000u, 0x7632);
  low = __byte_perm(a, b, 0x5410);
}

// A thread's 4 elements.
template <typename Rule, typename Grad, typename Master>
struct FourElements {
  static constexpr int kStates = Rule::kStates;
  static constexpr bool kSplit = std::is_same_v<Master, uint16_t>;
  float w[4] = {}, grad[4] = {}, state[kStates][4] = {};

  // Elements at, ..., at + 3 of buckets in 16-byte accesses.
  __device__ __forceinline__ void Load(const Buckets<kStates, Grad, Master>& b, int64_t at) {
    if constexpr (kSplit) {
      const uint2 low = *reinterpret_cast<const uint2*>(b.w + at), live = *reinterpret_cast<const uint2*>(b.live + at);
      JoinPair(live.x, low.x, w[0], w[1]);
      JoinPair(live.y, low.y, w[2], w[3]);
    } else {
      LoadFour(b.w + at, w);
    }
    LoadFour(b.grad + at, grad);
#pragma unroll
    for (int s = 0; s < kStates; ++s) LoadFour(b.state[s] + at, state[s]);
  }
  // Elements at, ..., at + n - 1 of buckets of any alignment.
  __device__ __forceinline__ void LoadSome(const Buckets<kStates, Grad, Master>& b, int64_t at, int n) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (j >= n) continue;
      if constexpr (kSplit) {
        float other;
        JoinPair(__bfloat16_as_ushort(b.live[at + j]), b.w[at + j], w[j], other);
      } else {
        w[j] = b.w[at + j];
      }
      grad[j] = ToFloat(b.grad[at + j]);
#pragma unroll
      for (int s = 0; s < kStates; ++s) state[s][j] = b.state[s][at + j];
    }
  }
  __device__ __forceinline__ void Store(const Buckets<kStates, Grad, Master>& b, int64_t at) const {
#pragma unroll
    for (int s = 0; s < kStates; ++s) StoreFloats(b.state[s] + at, state[s]);
    if constexpr (kSplit) {
      uint2 low, live;
      SplitPair(w[0], w[1], live.x, low.x);
      SplitPair(w[2], w[3], live.y, low.y);
      *reinterpret_cast<uint2*>(b.w + at) = low;
      *reinterpret_cast<uint2*>(b.live + at) = live;
      return;
    } else {
      StoreFloats(b.w + at, w);
    }
    if (b.live == nullptr) return;
    __nv_bfloat162 pair[2] = {__floats2bfloat162_rn(w[0], w[1]), __floats2bfloat162_rn(w[2], w[3])};
    *reinterpret_cast<uint2*>(b.live + at) = *reinterpret_cast<const uint2*>(pair);
  }
  __device__ __forceinline__ void StoreSome(const Buckets<kStates, Grad, Master>& b, int64_t at, int n) const {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (j >= n) continue;
#pragma unroll
      for (int s = 0; s < kStates; ++s) b.state[s][at + j] = state[s][j];
      if constexpr (kSplit) {
        uint32_t live, low;
        SplitPair(w[j], 0, live, low);
        b.live[at + j] = __ushort_as_bfloat16(static_cast<unsigned short>(live));
        b.w[at + j] = static_cast<uint16_t>(low);
        continue;
      } else {
        b.w[at + j] = w[j];
      }
      if (b.live != nullptr) b.live[at + j] = FromFloat<CudaBF16>(w[j]);
    }
  }

  __device__ __forceinline__ void Update(const typename Rule::Constants& c, int j, float decay) {
    float own[kStates];
#pragma unroll
    for (int s = 0; s < kStates; ++s) own[s] = state[s][j];
    Rule::Update(c, decay, grad[j], w[j], own);
#pragma unroll
    for (int s = 0; s < kStates; ++s) state[s][j] = own[s];
  }
  // Elements at, ..., at + 3, which decay alike, or as the segments say.
  __device__ __forceinline__ void UpdateAlike(const typename Rule::Constants& c, float decay) {
#pragma unroll
    for (int j = 0; j < 4; ++j) Update(c, j, decay);
  }
  __device__ __forceinline__ void UpdateBy(const typename Rule::Constants& c, const DecaySegments& segments, int k,
                                           int64_t at) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      k = segments.After(k, at + j);
      Update(c, j, Rule::Decay(c, k < segments.count && segments.begin[k] <= at + j ? segments.decay[k] : 0.0f));
    }
  }
};

__device__ __forceinline__ bool HeldBack(const StepScalars& now, float norm) {
  return now.skip_update != 0 || !isfinite(norm);
}

// Elements [begin, end) of the buckets, a tile a block. Many short blocks keep more bytes on their way than blocks that stay:
// 98% of a copy's bandwidth on an H200, where tiles in turn reached 93%, and 84% through shared memory. The constants are
// made while the elements come.
template <typename Rule, typename Grad, typename Master, bool kWide>
__global__ void __launch_bounds__(kUpdateThreads, 5)
    UpdateKernel(const Rule rule, const __grid_constant__ DecaySegments segments,
                 const Buckets<Rule::kStates, Grad, Master> b, const StepScalars* now, int64_t begin, int64_t end) {
  __shared__ typename Rule::Constants made;
  __shared__ bool held_back;
  const int64_t tile = begin + blockIdx.x * int64_t{kUpdateTile}, at = tile + threadIdx.x * 4;
  const int n = static_cast<int>(min(int64_t{4}, end - at));
  const bool whole = kWide && n == 4;
  FourElements<Rule, Grad, Master> x;
  if (whole) {
    x.Load(b, at);
  } else {
    x.LoadSome(b, at, n);
  }
  if (threadIdx.x == 0) {
    const float norm = *b.norm;
    held_back = HeldBack(*now, norm);
    made = rule.At(*now, norm);
  }
  __syncthreads();
  if (held_back) return;
  const typename Rule::Constants c = made;
  const int k = segments.After(0, tile);
  const int64_t tile_end = min(end, tile + kUpdateTile);
  if (k == segments.count || segments.begin[k] >= tile_end) {
    x.UpdateAlike(c, Rule::Decay(c, 0.0f));
  } else if (segments.begin[k] <= tile && segments.end[k] >= tile_end) {
    x.UpdateAlike(c, Rule::Decay(c, segments.decay[k]));
  } else {
    x.UpdateBy(c, segments, k, at);
  }
  if (whole) {
    x.Store(b, at);
  } else {
    x.StoreSome(b, at, n);
  }
}

}  // namespace strata
