#pragma once
// RMS norm (kCentered false: mean = 0) and layer norm with rows in the registers of the threads that own them, so that every
// operand is read once. With xhat = (x - mean) rstd and t = dy w:
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

// A row belongs to kLanes threads, part of a warp or all of the block, which hold its vectors lane, lane + kLanes, ...; a group
// of them works on kRows rows at a time. Every thread of a block runs through equally many rows, some beyond the last one.
template <int kBlockThreads, int kRowLanes, int kLaneVecs, int kGroupRows>
struct RowSpread {
  static constexpr int kThreads = kBlockThreads, kLanes = kRowLanes, kVecs = kLaneVecs, kRows = kGroupRows;
  static constexpr int kGroups = kThreads / kLanes, kBlockRows = kGroups * kRows, kWarps = kThreads / 32;
  static constexpr bool kWholeBlock = kLanes == kThreads;
  static_assert(kWholeBlock ? kWarps % 4 == 0 : 32 % kLanes == 0 && kThreads % 32 == 0);

  __device__ static int Lane() { return threadIdx.x % kLanes; }
  __device__ static int Vector(int i) { return Lane() + i * kLanes; }
  __device__ static int64_t FirstRow(int64_t block_row) { return block_row + threadIdx.x / kLanes * kRows; }
};

// The vectors of a thread from rows [first, first + kRows) of `from`; zeros beyond the rows, and beyond their vectors.
template <typename S, typename T>
__device__ __forceinline__ void LoadRows(const T* from, int64_t first, int64_t rows, int columns,
                                         Vec<T> (&held)[S::kRows][S::kVecs]) {
#pragma unroll
  for (int k = 0; k < S::kRows; ++k) {
#pragma unroll
    for (int i = 0; i < S::kVecs; ++i) {
      const int column = S::Vector(i) * Vec<T>::kSize;
      held[k][i] = {};
      if (first + k < rows && column < columns) held[k][i] = LoadVec(from + (first + k) * columns + column);
    }
  }
}
template <typename S, typename T>
__device__ __forceinline__ void PrefetchRows(const T* from, int64_t first, int64_t rows, int columns) {
#pragma unroll
  for (int k = 0; k < S::kRows; ++k) {
#pragma unroll
    for (int i = 0; i < S::kVecs; ++i) {
      const int column = S::Vector(i) * Vec<T>::kSize;
      if (first + k < rows && column < columns) Prefetch(from + (first + k) * columns + column);
    }
  }
}
template <typename S>
__device__ __forceinline__ void LoadScalars(const float* from, int64_t first, int64_t rows, float (&held)[S::kRows]) {
#pragma unroll
  for (int k = 0; k < S::kRows; ++k) held[k] = first + k < rows ? from[first + k] : 0.0f;
}
template <typename S, typename T>
__device__ __forceinline__ void LoadColumns(const T* from, int columns, Vec<T> (&held)[S::kVecs]) {
#pragma unroll
  for (int i = 0; i < S::kVecs; ++i) {
    const int column = S::Vector(i) * Vec<T>::kSize;
    held[i] = {};
    if (column < columns) held[i] = LoadVec(from + column);
  }
}

// Sums over the threads of a row, in each of them; all threads of the block call it. Where the block has one group, warps meet
// in shared memory, in two places in turn: who writes one again has met everybody since they read it.
template <typename S, int kSums>
class RowSums {
 public:
  static constexpr int kPlace = S::kWholeBlock ? S::kRows * kSums * S::kWarps : 1, kShared = 2 * kPlace;
  __device__ explicit RowSums(float* shared) : shared_(shared) {}  // kShared values, aligned to 16 bytes

  __device__ __forceinline__ void Add(float (&x)[S::kRows][kSums]) {
#pragma unroll
    for (int d = (S::kWholeBlock ? 32 : S::kLanes) / 2; d > 0; d /= 2) {
#pragma unroll
      for (int k = 0; k < S::kRows; ++k) {
#pragma unroll
        for (int n = 0; n < kSums; ++n) x[k][n] += __shfl_xor_sync(0xffffffffu, x[k][n], d);
      }
    }
    if constexpr (S::kWholeBlock) {
      float* const at = shared_ + turn_ * kPlace;
      turn_ ^= 1;
      if (threadIdx.x % 32 == 0) {
#pragma unroll
        for (int k = 0; k < S::kRows; ++k) {
#pragma unroll
          for (int n = 0; n < kSums; ++n) at[(k * kSums + n) * S::kWarps + threadIdx.x / 32] = x[k][n];
        }
      }
      __syncthreads();
#pragma unroll
      for (int k = 0; k < S::kRows; ++k) {
#pragma unroll
        for (int n = 0; n < kSums; ++n) {
          x[k][n] = 0;
#pragma unroll
          for (int w = 0; w < S::kWarps; w += 4) {
            const float4 four = *reinterpret_cast<const float4*>(at + (k * kSums + n) * S::kWarps + w);
            x[k][n] += (four.x + four.y) + (four.z + four.w);
          }
        }
      }
    }
  }

 private:
  float* const shared_;
  int turn_ = 0;
};

// Blocks that a multiprocessor has registers for.
template <typename S, bool kCentered>
inline constexpr int kForwardBlocks = S::kWholeBlock ? (kCentered ? 1536 : 2048) / (S::kThreads * S::kVecs)
                                                     : 1024 / S::kThreads;
template <typename S, bool kCentered>
inline constexpr int kBackwardBlocks = S::kThreads < 512             ? 512 / S::kThreads
                                       : S::kVecs == 1 && !kCentered ? 2
                                                                     : 1;
inline constexpr int kMostBackwardBlocks = 4;

template <typename T, bool kCentered, typename S>
__global__ void __launch_bounds__(S::kThreads, kForwardBlocks<S, kCentered>) NormForwardRows(NormForward<T> a) {
  constexpr int kSize = Vec<T>::kSize, kRows = S::kRows, kVecs = S::kVecs;
  __shared__ alignas(16) float shared[RowSums<S, 1>::kShared];
  RowSums<S, 1> sums(shared);
  const float over_columns = 1.0f / static_cast<float>(a.columns);
  Vec<T> w[kVecs], b[kVecs];
  LoadColumns<S>(a.w, a.columns, w);
  if constexpr (kCentered) LoadColumns<S>(a.b, a.columns, b);
  const int64_t step = gridDim.x * int64_t{S::kBlockRows};
  for (int64_t block_row = blockIdx.x * int64_t{S::kBlockRows}; block_row < a.rows; block_row += step) {
    const int64_t first = S::FirstRow(block_row);
    Vec<T> x[kRows][kVecs];
    LoadRows<S>(a.x, first, a.rows, a.columns, x);
    float sum[kRows][1] = {}, mean[kRows] = {};
    const auto for_each = [&](const auto& fn) {
#pragma unroll
      for (int k = 0; k < kRows; ++k) {
#pragma unroll
        for (int i = 0; i < kVecs; ++i) {
          if (S::Vector(i) * kSize < a.columns) fn(k, i);
        }
      }
    };
    if constexpr (kCentered) {
      for_each([&](int k, int i) {
#pragma unroll
        for (int j = 0; j < kSize; ++j) sum[k][0] += x[k][i][j];
      });
      sums.Add(sum);
#pragma unroll
      for (int k = 0; k < kRows; ++k) {
        mean[k] = sum[k][0] * over_columns;
        sum[k][0] = 0;
      }
    }
    for_each([&](int k, int i) {
#pragma unroll
      for (int j = 0; j < kSize; ++j) sum[k][0] += (x[k][i][j] - mean[k]) * (x[k][i][j] - mean[k]);
    });
    sums.Add(sum);
    float rstd[kRows];
#pragma unroll
    for (int k = 0; k < kRows; ++k) rstd[k] = 1.0f / sqrtf(sum[k][0] * over_columns + a.eps);
    for_each([&](int k, int i) {
      if (first + k >= a.rows) return;
      Vec<T> y;
#pragma unroll
      for (int j = 0; j < kSize; ++j) {
        y.Set(j, (x[k][i][j] - mean[k]) * rstd[k] * w[i][j] + (kCentered ? b[i][j] : 0.0f));
      }
      StoreVec(a.y + (first + k) * a.columns + S::Vector(i) * kSize, y);
    });
    if (S::Lane() > 0) continue;
#pragma unroll
    for (int k = 0; k < kRows; ++k) {
      if (first + k >= a.rows) continue;
      a.rstd[first + k] = rstd[k];
      if constexpr (kCentered) a.mean[first + k] = mean[k];
    }
  }
}

// The threads' parts of a column sum, added in their order, to out[columns].
template <typename S, int kSize>
__device__ __forceinline__ void AddGroups(float (&part)[S::kVecs][kSize], int columns, float* out) {
  if constexpr (S::kWholeBlock) {
#pragma unroll
    for (int i = 0; i < S::kVecs; ++i) {
      if (S::Vector(i) * kSize < columns) {
#pragma unroll
        for (int j = 0; j < kSize; j += 4) {
          *reinterpret_cast<float4*>(out + S::Vector(i) * kSize + j) =
              make_float4(part[i][j], part[i][j + 1], part[i][j + 2], part[i][j + 3]);
        }
      }
    }
  } else {
    __shared__ float sums[S::kLanes * S::kVecs * kSize];
#pragma unroll
    for (int i = 0; i < S::kVecs; ++i) {
#pragma unroll
      for (int j = 0; j < kSize; ++j) {
#pragma unroll
        for (int d = S::kLanes; d < 32; d *= 2) part[i][j] += __shfl_xor_sync(0xffffffffu, part[i][j], d);
      }
    }
    for (int warp = 0; warp < S::kWarps; ++warp) {
      if (threadIdx.x / 32 == warp && threadIdx.x % 32 < S::kLanes) {
#pragma unroll
        for (int i = 0; i < S::kVecs; ++i) {
          float* const at = sums + S::Vector(i) * kSize;
#pragma unroll
          for (int j = 0; j < kSize; ++j) at[j] = warp == 0 ? part[i][j] : at[j] + part[i][j];
        }
      }
      __syncthreads();
    }
    for (int c = threadIdx.x; c < columns; c += S::kThreads) out[c] = sums[c];
    __syncthreads();
  }
}

template <typename T, bool kCentered, typename S>
__global__ void __launch_bounds__(S::kThreads, kBackwardBlocks<S, kCentered>) NormBackwardRows(NormBackward<T> a) {
  constexpr int kSize = Vec<T>::kSize, kRows = S::kRows, kVecs = S::kVecs, kSums = kCentered ? 2 : 1;
  __shared__ alignas(16) float shared[RowSums<S, kSums>::kShared];
  RowSums<S, kSums> row_sums(shared);
  const float over_columns = 1.0f / static_cast<float>(a.columns);
  Vec<T> w[kVecs] = {};
  if (a.dx != nullptr) LoadColumns<S>(a.w, a.columns, w);
  float dw[kVecs][kSize] = {}, db[kVecs][kSize] = {};
  const int64_t step = gridDim.x * int64_t{S::kBlockRows};
  for (int64_t block_row = blockIdx.x * int64_t{S::kBlockRows}; block_row < a.rows; block_row += step) {
    const int64_t first = S::FirstRow(block_row);
    Vec<T> dy[kRows][kVecs], x[kRows][kVecs], r[kRows][kVecs];
    float rstd[kRows], mean[kRows] = {};
    LoadScalars<S>(a.rstd, first, a.rows, rstd);
    if constexpr (kCentered) LoadScalars<S>(a.mean, first, a.rows, mean);
    LoadRows<S>(a.dy, first, a.rows, a.columns, dy);
    LoadRows<S>(a.x, first, a.rows, a.columns, x);
    if (a.r != nullptr) LoadRows<S>(a.r, first, a.rows, a.columns, r);
    // The next rows are on their way to the cache while these are worked on.
    for (const T* operand : {a.dy, a.x, a.r}) {
      if (operand != nullptr) PrefetchRows<S>(operand, first + step, a.rows, a.columns);
    }
    float sums[kRows][kSums] = {};  // of t xhat, and of t
#pragma unroll
    for (int k = 0; k < kRows; ++k) {
#pragma unroll
      for (int i = 0; i < kVecs; ++i) {
#pragma unroll
        for (int j = 0; j < kSize; ++j) {
          const float d = dy[k][i][j], xhat = (x[k][i][j] - mean[k]) * rstd[k], t = d * w[i][j];
          dw[i][j] += d * xhat;
          if constexpr (kCentered) db[i][j] += d;
          sums[k][0] += t * xhat;
          if constexpr (kCentered) sums[k][1] += t;
        }
      }
    }
    if (a.dx == nullptr) continue;
    row_sums.Add(sums);
#pragma unroll
    for (int k = 0; k < kRows; ++k) {
      const float mean_tx = sums[k][0] * over_columns, mean_t = kCentered ? sums[k][kSums - 1] * over_columns : 0.0f;
#pragma unroll
      for (int i = 0; i < kVecs; ++i) {
        const int column = S::Vector(i) * kSize;
        if (first + k >= a.rows || column >= a.columns) continue;
        Vec<T> dx;
#pragma unroll
        for (int j = 0; j < kSize; ++j) {
          const float xhat = (x[k][i][j] - mean[k]) * rstd[k];
          const float d = rstd[k] * (dy[k][i][j] * w[i][j] - xhat * mean_tx - mean_t);
          dx.Set(j, a.r != nullptr ? d + r[k][i][j] : d);
        }
        StoreVec(a.dx + (first + k) * a.columns + column, dx);
      }
    }
  }
  if (a.partial == nullptr) return;
  float* const out = a.partial + blockIdx.x * int64_t{kSums} * a.columns;
  AddGroups<S>(dw, a.columns, out);
  if constexpr (kCentered) AddGroups<S>(db, a.columns, out + a.columns);
}

}  // namespace strata
