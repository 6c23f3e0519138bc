#pragma once
// What the plain attention kernels on tensor cores share: bf16 tiles in shared memory, 128 threads a block. A block owns a tile of
// 64 rows (queries or keys), a warp's part of it are 16 rows, and walks the rows of the other side in tiles. Head dims are padded
// to kD = 64 or 128. Probabilities and their gradients are rounded to bf16 before they are multiplied; all sums are float32.

#include <climits>

#include "core/kernels/attention_tiles.cuh"
#include "core/kernels/mma.cuh"

namespace strata::attention {

inline constexpr int kMmaThreads = 128, kMmaOwn = 64;
constexpr int PitchOf(int d) { return d + 8; }  // of a row of a tile: eight rows begin in different banks

// tile[i, :d] = x[i * row, :d] for i < n; zeros elsewhere in [kRows, kD].
template <int kD, int kRows>
__device__ void CopyTile(const CudaBF16* x, int64_t row, int64_t n, int d, CudaBF16* tile) {
  constexpr int kUnits = kD / 8;
  for (int i = threadIdx.x; i < kRows * kUnits; i += kMmaThreads) {
    const int r = i / kUnits, column = i % kUnits * 8;
    const bool inside = r < n && column < d;
    CopyAsync(tile + r * PitchOf(kD) + column, inside ? x + r * row + column : x, inside);
  }
}

// s[j] = the warp's 16 own rows times the other rows 8 j to 8 j + 7.
template <int kD, int kTiles>
__device__ __forceinline__ void WarpScores(const CudaBF16* own, const CudaBF16* other, float (&s)[kTiles][4]) {
  const int lane = threadIdx.x % 32;
  const CudaBF16* a_row = own + lane % 16 * PitchOf(kD) + lane / 16 * 8;
  const CudaBF16* b_row = other + (lane / 16 * 8 + lane % 8) * PitchOf(kD) + lane / 8 % 2 * 8;
#pragma unroll
  for (int j = 0; j < kTiles; ++j) s[j][0] = s[j][1] = s[j][2] = s[j][3] = 0;
#pragma unroll
  for (int k = 0; k < kD; k += 16) {
    uint32_t a[4];
    LoadMatrices(a, a_row + k);
#pragma unroll
    for (int j = 0; j < kTiles; j += 2) {
      uint32_t b[4];
      LoadMatrices(b, b_row + j * 8 * PitchOf(kD) + k);
      Mma(s[j], a, b[0], b[1]);
      Mma(s[j + 1], a, b[2], b[3]);
    }
  }
}

// sum += weights [16, 8 kTiles] times the other rows [8 kTiles, kD].
template <int kD, int kTiles>
__device__ __forceinline__ void WarpProducts(const float (&weights)[kTiles][4], const CudaBF16* other,
                                             float (&sum)[kD / 8][4]) {
  const int lane = threadIdx.x % 32;
  const CudaBF16* b_row = other + lane % 16 * PitchOf(kD) + lane / 16 * 8;
#pragma unroll
  for (int j = 0; j < kTiles; j += 2) {
    const uint32_t a[4] = {PackBF16(weights[j][0], weights[j][1]), PackBF16(weights[j][2], weights[j][3]),
                           PackBF16(weights[j + 1][0], weights[j + 1][1]),
                           PackBF16(weights[j + 1][2], weights[j + 1][3])};
#pragma unroll
    for (int c = 0; c < kD / 8; c += 2) {
      uint32_t b[4];
      LoadTransposed(b, b_row + j * 8 * PitchOf(kD) + c * 8);
      Mma(sum[c], a, b[0], b[1]);
      Mma(sum[c + 1], a, b[2], b[3]);
    }
  }
}

// to[i * row, :d] = rows i < n of `sum`, this thread's own: i = g and g + 8 of its warp, times `factor`.
template <int kD>
__device__ __forceinline__ void StoreWarpRows(const float (&sum)[kD / 8][4], const float (&factor)[2], CudaBF16* to,
                                              int64_t row, int64_t n, int d) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int i = lane / 4 + 8 * r;
    if (i >= n) break;
#pragma unroll
    for (int c = 0; c < kD / 8; ++c) {
      const int column = 8 * c + lane % 4 * 2;
      if (column < d) {
        *reinterpret_cast<uint32_t*>(to + i * row + column) =
            PackBF16(sum[c][2 * r] * factor[r], sum[c][2 * r + 1] * factor[r]);
      }
    }
  }
}

// The least and the greatest position of what the threads of a block give, in all of them. Once a kernel.
__device__ __forceinline__ Range Bounds(Range mine) {
  __shared__ int first, last;
  if (threadIdx.x == 0) first = INT_MAX, last = INT_MIN;
  __syncthreads();
  atomicMin(&first, mine.first);
  atomicMax(&last, mine.last);
  __syncthreads();
  return {first, last};
}

// How many of n numbers that do not fall are below x.
__device__ __forceinline__ int64_t CountBelow(const int32_t* numbers, int64_t n, int64_t x) {
  int64_t begin = 0, end = n;
  while (begin < end) {
    const int64_t middle = (begin + end) / 2;
    if (numbers[middle] < x) {
      begin = middle + 1;
    } else {
      end = middle;
    }
  }
  return begin;
}

struct Span {  // [begin, end)
  int64_t begin, end;
};
// Where positions rise (and starts with them), and the mask is causal: the keys that some of the queries see which together see
// the positions `seen`; the queries of row b that see some of the keys at positions `own`. Else all.
__device__ __forceinline__ Span KeysOf(const AttentionCall& c, Range seen) {
  if (!c.by_index || c.mask == AttentionMask::kFull) return {0, c.t};
  return {CountBelow(c.pos_k, c.t, seen.first), CountBelow(c.pos_k, c.t, int64_t{seen.last} + 1)};
}
__device__ __forceinline__ Span QueriesOf(const AttentionCall& c, int64_t b, Range own) {
  if (!c.by_index || c.mask == AttentionMask::kFull) return {0, c.s};
  return {CountBelow(c.pos_q, c.s, own.first),
          c.starts == nullptr ? c.s : CountBelow(c.starts + b * c.s, c.s, int64_t{own.last} + 1)};
}

// Whether the kernels on tensor cores take the call.
inline bool SuitsMma(const AttentionCall& c) {
  return c.dtype == DType::kBF16 && c.d % 8 == 0 && c.d <= 128 && c.q_row % 8 == 0 && c.kv_row % 8 == 0 &&
         Aligned16({c.q, c.k, c.v, c.o, c.d_o, c.dq, c.dk, c.dv});
}

inline absl::Status LaunchMma(TiledKernel kernel, const AttentionCall& c, int64_t heads, int64_t rows, int shared_rows,
                              int kD, cudaStream_t stream) {
  const int bytes = static_cast<int>(sizeof(CudaBF16)) * shared_rows * PitchOf(kD);
  RETURN_IF_ERROR(
      CudaStatus(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "attention"));
  const int64_t tiles = Ceil(rows, kMmaOwn);
  const float scale = static_cast<float>(1 / std::sqrt(static_cast<double>(c.d)));
  kernel<<<static_cast<unsigned>(heads * tiles), kMmaThreads, bytes, stream>>>(c, scale, tiles);
  return Launched("attention");
}

// Defined in attention_mma.cu and attention_mma_bwd.cu. The backward pass needs row_sum.
absl::Status MmaForward(const AttentionCall& c, cudaStream_t stream);
absl::Status MmaBackward(const AttentionCall& c, cudaStream_t stream);

}  // namespace strata::attention
