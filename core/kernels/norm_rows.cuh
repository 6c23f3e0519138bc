#pragma once
// RMS norm (kCentered false: mean = 0) and layer norm with a row in the registers of a group of warps, so that every operand
// is read once. With xhat = (x - mean) rstd and t = dy w:
//   y = xhat w (+ b);   dx = rstd (t - xhat mean(t xhat) (- mean(t))) (+ r);   dw = sum over rows of dy xhat, db of dy.
// Sums in float32, in a fixed order; each block leaves its part of dw (and db) as a row [1 or 2, columns] of `partial`.

#include "core/kernels/cuda_util.cuh"

namespace strata {

template <typename T>
struct NormForward {
  const T *x, *w, *b;  // b of layer norm only, as mean
  T* y;
  float *mean, *rstd;
  float eps;
  int64_t rows;
  int columns;
};
template <typename T>
struct NormBackward {
  const T *dy, *x, *w, *r;  // r: null for none
  const float *mean, *rstd;
  T* dx;           // null: not wanted. May be r
  float* partial;  // null: not wanted
  int64_t rows;
  int columns;
};

// kWarps warps of a block that work on a row of their own; a lane holds the row's vectors lane, lane + kLanes, ...
template <int kWarps>
class RowGroup {
 public:
  static constexpr int kBlockWarps = kWarps == 1 ? 12 : 16;  // 12: more registers a thread, for all of a row
  static constexpr int kThreads = 32 * kBlockWarps, kLanes = 32 * kWarps, kGroups = kBlockWarps / kWarps,
                       kShared = 4 * kBlockWarps;
  __device__ explicit RowGroup(float* shared)
      : index(threadIdx.x / kLanes), lane(threadIdx.x % kLanes), shared_(shared + index * kWarps * 2) {}

  // The group's sums, in every lane. Two places in turn: who writes one again has seen everybody read it.
  template <int kSums>
  __device__ __forceinline__ void Sum(float (&x)[kSums]) {
#pragma unroll
    for (int d = 16; d > 0; d /= 2) {
#pragma unroll
      for (int n = 0; n < kSums; ++n) x[n] += __shfl_xor_sync(0xffffffffu, x[n], d);
    }
    if constexpr (kWarps > 1) {
      float* const at = shared_ + turn_ * kBlockWarps * 2;
      turn_ ^= 1;
      if (lane % 32 == 0) {
#pragma unroll
        for (int n = 0; n < kSums; ++n) at[lane / 32 * 2 + n] = x[n];
      }
      asm volatile("bar.sync %0, %1;" ::"r"(index + 1), "n"(kLanes) : "memory");
#pragma unroll
      for (int n = 0; n < kSums; ++n) {
        x[n] = 0;
#pragma unroll
        for (int w = 0; w < kWarps; ++w) x[n] += at[w * 2 + n];
      }
    }
  }

  const int index, lane;

 private:
  float* const shared_;
  int turn_ = 0;
};

template <typename T, bool kCentered, int kWarps, int kVecs>
__global__ void __launch_bounds__(RowGroup<kWarps>::kThreads) NormForwardRows(NormForward<T> a) {
  using Group = RowGroup<kWarps>;
  constexpr int kSize = Vec<T>::kSize;
  __shared__ float shared[Group::kShared];
  Group group(shared);
  const int vecs = a.columns / kSize;
  const float over_columns = 1.0f / static_cast<float>(a.columns);
  for (int64_t row = blockIdx.x * int64_t{Group::kGroups} + group.index; row < a.rows;
       row += gridDim.x * int64_t{Group::kGroups}) {
    const T* const from = a.x + row * a.columns;
    Vec<T> x[kVecs];
    float sum[1] = {}, mean = 0;
#pragma unroll
    for (int i = 0; i < kVecs; ++i) {
      const int v = group.lane + i * Group::kLanes;
      if (v < vecs) x[i] = LoadVec(from + v * kSize);
    }
    if constexpr (kCentered) {
#pragma unroll
      for (int i = 0; i < kVecs; ++i) {
        if (group.lane + i * Group::kLanes >= vecs) continue;
#pragma unroll
        for (int j = 0; j < kSize; ++j) sum[0] += x[i][j];
      }
      group.Sum(sum);
      mean = sum[0] * over_columns;
      sum[0] = 0;
    }
#pragma unroll
    for (int i = 0; i < kVecs; ++i) {
      if (group.lane + i * Group::kLanes >= vecs) continue;
#pragma unroll
      for (int j = 0; j < kSize; ++j) sum[0] += (x[i][j] - mean) * (x[i][j] - mean);
    }
    group.Sum(sum);
    const float rstd = 1.0f / sqrtf(sum[0] * over_columns + a.eps);
#pragma unroll
    for (int i = 0; i < kVecs; ++i) {
      const int v = group.lane + i * Group::kLanes;
      if (v >= vecs) continue;
      const Vec<T> w = LoadVec(a.w + v * kSize);
      Vec<T> b, y;
      if constexpr (kCentered) b = LoadVec(a.b + v * kSize);
#pragma unroll
      for (int j = 0; j < kSize; ++j) y.Set(j, (x[i][j] - mean) * rstd * w[j] + (kCentered ? b[j] : 0.0f));
      StoreVec(a.y + row * a.columns + v * kSize, y);
    }
    if (group.lane == 0) {
      a.rstd[row] = rstd;
      if constexpr (kCentered) a.mean[row] = mean;
    }
  }
}

// Blocks of NormBackwardRows that a multiprocessor has registers for.
template <int kVecs>
inline constexpr int kNormBlocks = kVecs == 1 ? 2 : 1;

// The groups' parts of a column sum, added in their order, to out[columns].
template <int kWarps, int kVecs, int kSize>
__device__ __forceinline__ void AddGroups(const RowGroup<kWarps>& group, const float (&part)[kVecs][kSize], int columns,
                                          float* out) {
  using Group = RowGroup<kWarps>;
  __shared__ float sums[Group::kLanes * kVecs * kSize];
  for (int g = 0; g < Group::kGroups; ++g) {
    if (group.index == g) {
#pragma unroll
      for (int i = 0; i < kVecs; ++i) {
        float* const at = sums + (group.lane + i * Group::kLanes) * kSize;
#pragma unroll
        for (int j = 0; j < kSize; ++j) at[j] = g == 0 ? part[i][j] : at[j] + part[i][j];
      }
    }
    __syncthreads();
  }
  for (int c = threadIdx.x; c < columns; c += Group::kThreads) out[c] = sums[c];
  __syncthreads();
}

template <typename T, bool kCentered, int kWarps, int kVecs>
__global__ void __launch_bounds__(RowGroup<kWarps>::kThreads, kNormBlocks<kVecs>) NormBackwardRows(NormBackward<T> a) {
  using Group = RowGroup<kWarps>;
  constexpr int kSize = Vec<T>::kSize;
  __shared__ float shared[Group::kShared];
  Group group(shared);
  const int vecs = a.columns / kSize;
  const float over_columns = 1.0f / static_cast<float>(a.columns);
  Vec<T> w[kVecs];
  float dw[kVecs][kSize] = {}, db[kVecs][kSize] = {};
#pragma unroll
  for (int i = 0; i < kVecs; ++i) {
    const int v = group.lane + i * Group::kLanes;
    if (a.dx != nullptr && v < vecs) w[i] = LoadVec(a.w + v * kSize);
  }
  const int64_t step = gridDim.x * int64_t{Group::kGroups};
  for (int64_t row = blockIdx.x * int64_t{Group::kGroups} + group.index; row < a.rows; row += step) {
    const int64_t begin = row * a.columns;
    Vec<T> dy[kVecs], x[kVecs], r[kVecs];
#pragma unroll
    for (int i = 0; i < kVecs; ++i) {
      const int v = group.lane + i * Group::kLanes;
      if (v >= vecs) continue;
      dy[i] = LoadVec(a.dy + begin + v * kSize);
      x[i] = LoadVec(a.x + begin + v * kSize);
      if (a.r != nullptr) r[i] = LoadVec(a.r + begin + v * kSize);
      if (row + step < a.rows) {  // the next row is on its way to the cache while this one is worked on
        const int64_t next = (row + step) * a.columns + v * kSize;
        Prefetch(a.dy + next);
        Prefetch(a.x + next);
        if (a.r != nullptr) Prefetch(a.r + next);
      }
    }
    const float rstd = a.rstd[row], mean = kCentered ? a.mean[row] : 0.0f;
    float sums[kCentered ? 2 : 1] = {};  // of t xhat, and of t
#pragma unroll
    for (int i = 0; i < kVecs; ++i) {
      if (group.lane + i * Group::kLanes >= vecs) continue;
#pragma unroll
      for (int j = 0; j < kSize; ++j) {
        const float d = dy[i][j], xhat = (x[i][j] - mean) * rstd;
        dw[i][j] += d * xhat;
        if constexpr (kCentered) db[i][j] += d;
        if (a.dx != nullptr) {
          const float t = d * w[i][j];
          sums[0] += t * xhat;
          if constexpr (kCentered) sums[1] += t;
        }
      }
    }
    if (a.dx == nullptr) continue;
    group.Sum(sums);
    const float mean_tx = sums[0] * over_columns, mean_t = kCentered ? sums[kCentered ? 1 : 0] * over_columns : 0.0f;
#pragma unroll
    for (int i = 0; i < kVecs; ++i) {
      const int v = group.lane + i * Group::kLanes;
      if (v >= vecs) continue;
      Vec<T> dx;
#pragma unroll
      for (int j = 0; j < kSize; ++j) {
        const float d = rstd * (dy[i][j] * w[i][j] - (x[i][j] - mean) * rstd * mean_tx - mean_t);
        dx.Set(j, a.r != nullptr ? d + r[i][j] : d);
      }
      StoreVec(a.dx + begin + v * kSize, dx);
    }
  }
  if (a.partial == nullptr) return;
  float* const out = a.partial + blockIdx.x * int64_t{kCentered ? 2 : 1} * a.columns;
  AddGroups<kWarps>(group, dw, a.columns, out);
  if constexpr (kCentered) AddGroups<kWarps>(group, db, a.columns, out + a.columns);
}

}  // namespace strata
