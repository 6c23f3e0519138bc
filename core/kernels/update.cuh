#pragma once
// An optimizer's update of flat buckets, element by element: w, its states and the bf16 live weights in place, by gradients
// of float32 or bf16. A thread has 4 adjacent elements at a time: 16-byte accesses to each float32 tensor. Nothing is
// written where StepScalars::skip_update is set or the norm is not finite. Launched by update_launch.cuh.
//
// Rule: kStates; Constants = At(scalars, norm), made once a block; Decay(constants, decay), what Update takes of a decay;
// Update(constants, Decay(), grad, w, states). Its arithmetic leaves a compiler nothing to contract, so that all kernels
// round alike.

#include <limits>

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

// How the elements of tiles decay, which are asked for in rising order: most tiles lie where the last one did.
struct TileDecay {
  int segment = 0;    // the first that ends after the tile's first element
  float decay = 0;    // of elements from there until
  int64_t until = 0;  // this one

  // Whether [tile, end) decays alike.
  __device__ __forceinline__ bool Alike(const DecaySegments& s, int64_t tile, int64_t end) {
    if (end <= until) return true;
    segment = s.After(segment, tile);
    if (segment == s.count) {
      decay = 0, until = std::numeric_limits<int64_t>::max();
    } else if (s.begin[segment] > tile) {
      decay = 0, until = s.begin[segment];
    } else {
      decay = s.decay[segment], until = s.end[segment];
    }
    return end <= until;
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

// A thread's 4 elements.
template <typename Rule, typename Grad>
struct FourElements {
  static constexpr int kStates = Rule::kStates;
  float w[4] = {}, grad[4] = {}, state[kStates][4] = {};

  // From places in global or shared memory, of which a place of 4 is whole.
  __device__ __forceinline__ void Load(const float* w_at, const Grad* grad_at,
                                       const float* const (&state_at)[kStates]) {
    LoadFour(w_at, w);
    LoadFour(grad_at, grad);
#pragma unroll
    for (int s = 0; s < kStates; ++s) LoadFour(state_at[s], state[s]);
  }
  // Elements at, ..., at + n - 1 of buckets of any alignment.
  __device__ __forceinline__ void LoadSome(const Buckets<kStates, Grad>& b, int64_t at, int n) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (j >= n) continue;
      w[j] = b.w[at + j];
      grad[j] = ToFloat(b.grad[at + j]);
#pragma unroll
      for (int s = 0; s < kStates; ++s) state[s][j] = b.state[s][at + j];
    }
  }
  __device__ __forceinline__ void Store(const Buckets<kStates, Grad>& b, int64_t at) const {
    StoreFloats(b.w + at, w);
#pragma unroll
    for (int s = 0; s < kStates; ++s) StoreFloats(b.state[s] + at, state[s]);
    if (b.live == nullptr) return;
    __nv_bfloat162 pair[2] = {__floats2bfloat162_rn(w[0], w[1]), __floats2bfloat162_rn(w[2], w[3])};
    *reinterpret_cast<uint2*>(b.live + at) = *reinterpret_cast<const uint2*>(pair);
  }
  __device__ __forceinline__ void StoreSome(const Buckets<kStates, Grad>& b, int64_t at, int n) const {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (j >= n) continue;
      b.w[at + j] = w[j];
#pragma unroll
      for (int s = 0; s < kStates; ++s) b.state[s][at + j] = state[s][j];
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

// A thread's 4 elements of the tile in global memory, as many as lie before `end`.
template <typename Rule, typename Grad, bool kWide>
__device__ __forceinline__ void UpdateInPlace(const typename Rule::Constants& c, const DecaySegments& segments,
                                              TileDecay& decays, const Buckets<Rule::kStates, Grad>& b, int64_t tile,
                                              int64_t end) {
  const bool alike = decays.Alike(segments, tile, min(end, tile + kUpdateTile));
  const int64_t at = tile + threadIdx.x * 4;
  if (at >= end) return;
  const int n = static_cast<int>(min(int64_t{4}, end - at));
  const bool whole = kWide && n == 4;
  FourElements<Rule, Grad> x;
  if (whole) {
    const float* states[Rule::kStates];
#pragma unroll
    for (int s = 0; s < Rule::kStates; ++s) states[s] = b.state[s] + at;
    x.Load(b.w + at, b.grad + at, states);
  } else {
    x.LoadSome(b, at, n);
  }
  if (alike) {
    x.UpdateAlike(c, Rule::Decay(c, decays.decay));
  } else {
    x.UpdateBy(c, segments, decays.segment, at);
  }
  if (whole) {
    x.Store(b, at);
  } else {
    x.StoreSome(b, at, n);
  }
}

__device__ __forceinline__ bool HeldBack(const StepScalars& now, float norm) {
  return now.skip_update != 0 || !isfinite(norm);
}

// Blocks of a multiprocessor, all of which run at once: those of a second wave would be too few for the memory's bandwidth.
inline constexpr int kUpdateResident = 5;
inline constexpr int64_t kUpdateBlocks = kUpdateResident * 132;

// Elements [begin, end) of the buckets.
template <typename Rule, typename Grad, bool kWide>
__global__ void __launch_bounds__(kUpdateThreads, kUpdateResident)
    UpdateKernel(const Rule rule, const __grid_constant__ DecaySegments segments, const Buckets<Rule::kStates, Grad> b,
                 const StepScalars* now, int64_t begin, int64_t end) {
  __shared__ typename Rule::Constants made;
  const float norm = *b.norm;
  if (HeldBack(*now, norm)) return;
  if (threadIdx.x == 0) made = rule.At(*now, norm);
  __syncthreads();
  const typename Rule::Constants c = made;
  TileDecay decays;
  for (int64_t tile = begin + blockIdx.x * int64_t{kUpdateTile}; tile < end; tile += gridDim.x * int64_t{kUpdateTile}) {
    UpdateInPlace<Rule, Grad, kWide>(c, segments, decays, b, tile, end);
  }
}

}  // namespace strata
