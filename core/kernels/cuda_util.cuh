#pragma once
// What the GPU kernels share: dtypes, 16-byte vectors, exponentials, block sums.

#include <cuda_bf16.h>

#include <initializer_list>
#include <string>
#include <type_traits>

#include "core/exec/cuda_context.h"
#include "core/kernels/cuda_kernels.h"

namespace strata {

using CudaBF16 = __nv_bfloat16;

// Registers make.operator()<T>(), a Kernel, for T = float and CudaBF16.
template <typename Make>
void AddForCudaFloats(KernelTable& table, const std::string& op, const Make& make) {
  table.Add(op, DType::kF32, make.template operator()<float>());
  table.Add(op, DType::kBF16, make.template operator()<CudaBF16>());
}

__device__ __forceinline__ float ToFloat(float x) { return x; }
__device__ __forceinline__ float ToFloat(CudaBF16 x) { return __bfloat162float(x); }
template <typename T>
__device__ __forceinline__ T FromFloat(float x) {
  if constexpr (std::is_same_v<T, float>) {
    return x;
  } else {
    return __float2bfloat16_rn(x);
  }
}

// 16 bytes of T: one load, one store.
template <typename T>
struct alignas(16) Vec {
  static constexpr int kSize = 16 / sizeof(T);
  T v[kSize];
  __device__ __forceinline__ float operator[](int i) const { return ToFloat(v[i]); }
  __device__ __forceinline__ void Set(int i, float x) { v[i] = FromFloat<T>(x); }
};
template <typename T>
__device__ __forceinline__ Vec<T> LoadVec(const T* p) {
  return *reinterpret_cast<const Vec<T>*>(p);
}
template <typename T>
__device__ __forceinline__ void StoreVec(T* p, const Vec<T>& v) {
  *reinterpret_cast<Vec<T>*>(p) = v;
}

// Into the L2 cache.
__device__ __forceinline__ void Prefetch(const void* p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }

// Whether 16-byte accesses to all of `p` are possible.
inline bool Aligned16(std::initializer_list<const void*> p) {
  uintptr_t bits = 0;
  for (const void* q : p) bits |= reinterpret_cast<uintptr_t>(q);
  return bits % 16 == 0;
}

// kWidth adjacent values as floats: one by one where kWidth is 1, else in 16-byte accesses.
template <int kWidth, typename T>
__device__ __forceinline__ void LoadFloats(const T* p, float (&x)[kWidth]) {
  if constexpr (kWidth == 1) {
    x[0] = ToFloat(*p);
  } else {
    constexpr int kSize = Vec<T>::kSize;
    static_assert(kWidth % kSize == 0);
#pragma unroll
    for (int i = 0; i < kWidth; i += kSize) {
      const Vec<T> v = LoadVec(p + i);
#pragma unroll
      for (int j = 0; j < kSize; ++j) x[i + j] = v[j];
    }
  }
}
template <int kWidth, typename T>
__device__ __forceinline__ void StoreFloats(T* p, const float (&x)[kWidth]) {
  if constexpr (kWidth == 1) {
    *p = FromFloat<T>(x[0]);
  } else {
    constexpr int kSize = Vec<T>::kSize;
    static_assert(kWidth % kSize == 0);
#pragma unroll
    for (int i = 0; i < kWidth; i += kSize) {
      Vec<T> v;
#pragma unroll
      for (int j = 0; j < kSize; ++j) v.Set(j, x[i + j]);
      StoreVec(p + i, v);
    }
  }
}

// e^x and 1 / (1 + e^-x) for a result of type T: the hardware's approximations (a few units in float's last place) are
// good for bf16.
template <typename T>
__device__ __forceinline__ float Exp(float x) {
  return std::is_same_v<T, float> ? expf(x) : __expf(x);
}
template <typename T>
__device__ __forceinline__ float Sigmoid(float x) {
  return std::is_same_v<T, float> ? 1.0f / (1.0f + expf(-x)) : __fdividef(1.0f, 1.0f + __expf(-x));
}

// The sum over the block's threads, in every thread; `shared` holds 32 values. The order is fixed: equal bits every time.
template <typename F>
__device__ __forceinline__ F BlockSum(F x, F* shared) {
  for (int d = 16; d > 0; d /= 2) x += __shfl_xor_sync(0xffffffffu, x, d);
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
  __syncthreads();
  x = threadIdx.x % 32 < blockDim.x / 32 ? shared[threadIdx.x % 32] : F{0};
  for (int d = 16; d > 0; d /= 2) x += __shfl_xor_sync(0xffffffffu, x, d);
  return x;
}
__device__ __forceinline__ float BlockMax(float x, float* shared) {
  for (int d = 16; d > 0; d /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, d));
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = x;
  __syncthreads();
  x = threadIdx.x % 32 < blockDim.x / 32 ? shared[threadIdx.x % 32] : -INFINITY;
  for (int d = 16; d > 0; d /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, d));
  return x;
}

inline int64_t Ceil(int64_t n, int64_t d) { return (n + d - 1) / d; }
inline int64_t RowsOf(const TensorRef& x) { return x.shape.back() > 0 ? x.shape.elements() / x.shape.back() : 0; }

}  // namespace strata
