#pragma once
// Rows of logits as the cross-entropy kernels see them: a block a row, in 16-byte accesses where they are possible.

#include "core/kernels/cuda_util.cuh"

namespace strata {

inline constexpr int kRowThreads = 256;

template <typename T>
struct VocabRows {
  const T* z;
  int64_t columns, first;  // of the local block of the vocabulary
  bool wide;

  VocabRows(const TensorRef& t, const T* dz)
      : z(t.as<const T>()),
        columns(t.shape.back()),
        first(t.origin[2]),
        wide(columns % Vec<T>::kSize == 0 && Aligned16({z, dz})) {}

  // Column of a target; -1 where another shard, or none, has it.
  __device__ __forceinline__ int64_t LocalTarget(int32_t target) const {
    const int64_t v = target - first;
    return v >= 0 && v < columns ? v : -1;
  }

  // fn(v, z[v]) for the block's row, spread over its threads.
  template <typename Fn>
  __device__ __forceinline__ void ForEach(const Fn& fn) const {
    const T* const row = z + blockIdx.x * columns;
    if (wide) {
      constexpr int kSize = Vec<T>::kSize;
#pragma unroll 4
      for (int i = threadIdx.x; i < columns / kSize; i += blockDim.x) {
        const Vec<T> x = LoadVec(row + i * kSize);
#pragma unroll
        for (int j = 0; j < kSize; ++j) fn(i * kSize + j, x[j]);
      }
    } else {
      for (int v = threadIdx.x; v < columns; v += blockDim.x) fn(v, ToFloat(row[v]));
    }
  }

  // dz[v] = fn(v, z[v]), from the end, as what was read last is likely still in the cache. dz may be z.
  template <typename Fn>
  __device__ __forceinline__ void Write(T* dz, const Fn& fn) const {
    const T* const row = z + blockIdx.x * columns;
    T* const out = dz + blockIdx.x * columns;
    constexpr int kSize = Vec<T>::kSize;
    const int count = static_cast<int>(wide ? columns / kSize : columns), step = blockDim.x;
    for (int i = (count - 1) / step * step + threadIdx.x; i >= 0; i -= step) {
      if (i >= count) continue;
      if (!wide) {
        out[i] = FromFloat<T>(fn(i, ToFloat(row[i])));
        continue;
      }
      const Vec<T> x = LoadVec(row + i * kSize);
      Vec<T> y;
#pragma unroll
      for (int j = 0; j < kSize; ++j) y.Set(j, fn(i * kSize + j, x[j]));
      StoreVec(out + i * kSize, y);
    }
  }

  // dz[v] = fn(v); z is not read.
  template <typename Fn>
  __device__ __forceinline__ void Fill(T* dz, const Fn& fn) const {
    T* const out = dz + blockIdx.x * columns;
    constexpr int kSize = Vec<T>::kSize;
    if (wide) {
      for (int i = threadIdx.x; i < columns / kSize; i += blockDim.x) {
        Vec<T> y;
#pragma unroll
        for (int j = 0; j < kSize; ++j) y.Set(j, fn(i * kSize + j));
        StoreVec(out + i * kSize, y);
      }
    } else {
      for (int v = threadIdx.x; v < columns; v += blockDim.x) out[v] = FromFloat<T>(fn(v));
    }
  }
};

}  // namespace strata
