#pragma once
// What the plain attention kernels share: float32 tiles in shared memory, 256 threads a block as 16 x 16. A block owns a tile
// of rows (queries or keys), a thread's part of it are kRows adjacent rows, and walks the rows of the other side in tiles of
// kOther. Head dims are padded to kD = 64, 128 or 256.

#include <climits>
#include <cmath>

#include "core/base/status.h"
#include "core/kernels/attention_cuda.h"
#include "core/kernels/cuda_util.cuh"

namespace strata::attention {

inline constexpr int kThreads = 256, kOther = 32;         // rows of a tile of the other side: two a thread, 16 apart
inline constexpr int kWeightStride = kOther + 4;          // of a row of p or ds
constexpr int StrideOf(int d) { return d + 4; }           // of a row of a tile: rows begin in different banks
constexpr int RowsOf(int d) { return d <= 128 ? 4 : 2; }  // own rows a thread
constexpr int OwnOf(int d) { return 16 * RowsOf(d); }     // own rows a block

__device__ __forceinline__ float4 Load4(const float* p) { return *reinterpret_cast<const float4*>(p); }
__device__ __forceinline__ float Dot(float4 a, float4 b) { return a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w; }
__device__ __forceinline__ void Fma(float4& sum, float w, float4 x) {
  sum.x += w * x.x;
  sum.y += w * x.y;
  sum.z += w * x.z;
  sum.w += w * x.w;
}

// Over the 16 threads that share own rows.
__device__ __forceinline__ float MaxOf16(float x) {
  for (int i = 8; i > 0; i /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, i));
  return x;
}
__device__ __forceinline__ float SumOf16(float x) {
  for (int i = 8; i > 0; i /= 2) x += __shfl_xor_sync(0xffffffffu, x, i);
  return x;
}

// tile[i, :d] = x[i * row, :d] for i < n; zeros elsewhere in [kRows, kD].
template <int kD, int kRows, typename T>
__device__ void LoadTile(const T* x, int64_t row, int64_t n, int d, float* tile) {
  constexpr int kVec = Vec<T>::kSize;
  if (d % kVec == 0) {
    for (int i = threadIdx.x; i < kRows * (kD / kVec); i += kThreads) {
      const int r = i / (kD / kVec), column = i % (kD / kVec) * kVec;
      const bool inside = r < n && column < d;
      Vec<T> v;
      if (inside) v = LoadVec(x + r * row + column);
      float* to = tile + r * StrideOf(kD) + column;
#pragma unroll
      for (int j = 0; j < kVec; j += 4) {
        *reinterpret_cast<float4*>(to + j) =
            inside ? make_float4(v[j], v[j + 1], v[j + 2], v[j + 3]) : make_float4(0, 0, 0, 0);
      }
    }
  } else {
    for (int i = threadIdx.x; i < kRows * kD; i += kThreads) {
      const int r = i / kD, column = i % kD;
      tile[r * StrideOf(kD) + column] = r < n && column < d ? ToFloat(x[r * row + column]) : 0.0f;
    }
  }
}

// s[r][c] = own row ty * kRows + r times other row tx + 16 c.
template <int kD, int kRows>
__device__ void Scores(const float* own, const float* other, int d, float (&s)[kRows][2]) {
  const int ty = threadIdx.x / 16, tx = threadIdx.x % 16;
#pragma unroll
  for (int r = 0; r < kRows; ++r) s[r][0] = s[r][1] = 0;
  const float* a = own + ty * kRows * StrideOf(kD);
  const float* b = other + tx * StrideOf(kD);
#pragma unroll 4
  for (int k = 0; k < d; k += 4) {
    const float4 b0 = Load4(b + k), b1 = Load4(b + 16 * StrideOf(kD) + k);
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const float4 x = Load4(a + r * StrideOf(kD) + k);
      s[r][0] += Dot(x, b0);
      s[r][1] += Dot(x, b1);
    }
  }
}

// sum[r][c] += weights of own row ty * kRows + r times columns tx * 4 + 64 c of the other rows.
template <int kD, int kRows>
__device__ void AddProducts(const float* weights, const float* other, float4 (&sum)[kRows][kD / 64]) {
  const int ty = threadIdx.x / 16, tx = threadIdx.x % 16;
#pragma unroll 2
  for (int j = 0; j < kOther; j += 4) {
    float4 w[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) w[r] = Load4(weights + (ty * kRows + r) * kWeightStride + j);
#pragma unroll
    for (int c = 0; c < kD / 64; ++c) {
      const float* x = other + j * StrideOf(kD) + tx * 4 + 64 * c;
      const float4 x0 = Load4(x), x1 = Load4(x + StrideOf(kD)), x2 = Load4(x + 2 * StrideOf(kD)),
                   x3 = Load4(x + 3 * StrideOf(kD));
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        Fma(sum[r][c], w[r].x, x0);
        Fma(sum[r][c], w[r].y, x1);
        Fma(sum[r][c], w[r].z, x2);
        Fma(sum[r][c], w[r].w, x3);
      }
    }
  }
}

// to[i * row, :d] = the own rows i < n of `sum`.
template <int kD, int kRows, typename T>
__device__ void StoreRows(const float4 (&sum)[kRows][kD / 64], T* to, int64_t row, int64_t n, int d) {
  struct alignas(4 * sizeof(T)) Four {
    T v[4];
  };
  const int ty = threadIdx.x / 16, tx = threadIdx.x % 16;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int i = ty * kRows + r;
    if (i >= n) break;
#pragma unroll
    for (int c = 0; c < kD / 64; ++c) {
      const int column = tx * 4 + 64 * c;
      const float4 x = sum[r][c];
      const Four four = {{FromFloat<T>(x.x), FromFloat<T>(x.y), FromFloat<T>(x.z), FromFloat<T>(x.w)}};
      T* at = to + i * row + column;
      if (d % 4 == 0) {
        if (column < d) *reinterpret_cast<Four*>(at) = four;
      } else {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          if (column + j < d) at[j] = four.v[j];
        }
      }
    }
  }
}

// Whose rows a block of the backward pass owns: keys for dk and dv, queries for dq.
enum class Owns { kKeys, kQueries };

// A block of the backward pass: rows from own0 on of own_rows, beside other_rows, of batch b, kv head `kv` and the query heads
// [first_h, end_h). k and v begin at the head's first row, q and d_o at the batch's first row of all heads, o_row apart.
template <typename T>
struct BackwardBlock {
  int64_t own0, own_rows, other_rows, b, kv, first_h, end_h, o_row;
  const T *k, *v, *q, *d_o;
};
template <typename T, Owns kOwns>
__device__ __forceinline__ BackwardBlock<T> BackwardBlockOf(const AttentionCall& c, int64_t tiles, int own) {
  constexpr bool kKeys = kOwns == Owns::kKeys;
  const int64_t heads = c.b * (kKeys ? c.hk : c.hq), head = blockIdx.x % heads, turn = blockIdx.x / heads;
  const int64_t own0 = (kKeys ? turn : tiles - 1 - turn) * own;  // most work first
  const int64_t own_rows = kKeys ? c.t : c.s, other_rows = kKeys ? c.s : c.t;
  const int64_t b = head / (kKeys ? c.hk : c.hq);
  const int64_t kv = kKeys ? head % c.hk : (c.first_q + head % c.hq) / c.group - c.first_k;
  int64_t first_h = head % c.hq, end_h = first_h + 1;
  if (kKeys) {
    first_h = max((c.first_k + kv) * c.group - c.first_q, int64_t{0});
    end_h = min((c.first_k + kv + 1) * c.group - c.first_q, c.hq);
  }
  const int d = static_cast<int>(c.d);
  const int64_t o_row = c.hq * d;
  return {own0,
          own_rows,
          other_rows,
          b,
          kv,
          first_h,
          end_h,
          o_row,
          static_cast<const T*>(c.k) + b * c.t * c.kv_row + kv * d,
          static_cast<const T*>(c.v) + b * c.t * c.kv_row + kv * d,
          static_cast<const T*>(c.q) + b * c.s * c.q_row,
          static_cast<const T*>(c.d_o) + b * c.s * o_row};
}

struct Range {  // of the positions that a query sees
  int first, last;
};
__device__ __forceinline__ Range RangeOf(const AttentionCall& c, int64_t b, int64_t i) {
  if (i >= c.s) return {INT_MAX, INT_MIN};
  if (c.mask == AttentionMask::kFull) return {INT_MIN, INT_MAX};
  return {c.starts == nullptr ? INT_MIN : c.starts[b * c.s + i], c.pos_q[i]};
}
struct Key {
  int position;
  bool exists;
};
__device__ __forceinline__ Key KeyOf(const AttentionCall& c, int64_t j) {
  if (j >= c.t) return {0, false};
  return {c.mask == AttentionMask::kFull ? 0 : c.pos_k[j], true};
}
__device__ __forceinline__ bool Sees(Range q, Key k) {
  return k.exists && q.first <= k.position && k.position <= q.last;
}

using TiledKernel = void (*)(AttentionCall, float, int64_t);

// `shared_rows` of tiles and `weight_tiles` of own rows are in shared memory.
inline absl::Status Launch(TiledKernel kernel, const AttentionCall& c, int64_t heads, int64_t rows, int own,
                           int shared_rows, int weight_tiles, int kD, cudaStream_t stream) {
  const int bytes = 4 * (shared_rows * StrideOf(kD) + weight_tiles * own * kWeightStride);
  RETURN_IF_ERROR(
      CudaStatus(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "attention"));
  const int64_t tiles = Ceil(rows, own);
  const float scale = static_cast<float>(1 / std::sqrt(static_cast<double>(c.d)));
  kernel<<<static_cast<unsigned>(heads * tiles), kThreads, bytes, stream>>>(c, scale, tiles);
  return Launched("attention");
}

// Picks a kernel by dtype and head dim: runs fn.operator()<T, kD>().
template <typename Fn>
absl::Status ByType(const AttentionCall& c, const Fn& fn) {
  if (c.dtype == DType::kBF16) {
    if (c.d <= 64) return fn.template operator()<CudaBF16, 64>();
    return c.d <= 128 ? fn.template operator()<CudaBF16, 128>() : fn.template operator()<CudaBF16, 256>();
  }
  if (c.d <= 64) return fn.template operator()<float, 64>();
  return c.d <= 128 ? fn.template operator()<float, 128>() : fn.template operator()<float, 256>();
}

}  // namespace strata::attention
