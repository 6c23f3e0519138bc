#pragma once
// Hopper: what norm_rows.cuh computes, of rows that come through shared memory (row_ring.cuh), where w and b lie too. A team of warps has a row: its thread t
// the vectors t, t + threads, ..., at most kStagedVecs of them. Blocks stay, one a multiprocessor, and keep their parts of dw (and
// db) in registers over all of their rows. With u = x - mean, S = sum dy u w and Z = sum dy w (0 of RMS norm) over E columns:
//   dw = sum over rows of dy u rstd;   dx = rstd (dy w) + (u c + (e (+ r))),  c = -rstd^3 S / E,  e = -rstd Z / E.

#include "core/kernels/dependent_launch.cuh"
#include "core/kernels/norm_rows.cuh"
#include "core/kernels/row_ring.cuh"

namespace strata {

inline constexpr int kStagedVecs = 4, kForwardWarps = 24;
// As many as have registers for a thread's parts of the column sums: dw, db of layer norm, and the sum of dx where it is wanted.
template <int kColumnSums>
inline constexpr int kBackwardWarps = kColumnSums > 2 ? 12 : 16;

template <typename Team, typename Fn>
__device__ __forceinline__ void ForEachVector(int vecs, const Fn& fn) {
#pragma unroll
  for (int i = 0; i < kStagedVecs; ++i) {
    const int v = Team::Thread() + i * Team::kThreads;
    if (v < vecs) fn(i, v);
  }
}

// Weights into shared memory, for all threads of the block after its next barrier.
template <typename T>
__device__ __forceinline__ void HoldWeights(uint4* to, const T* from, int columns) {
  for (int v = threadIdx.x; v < columns / Vec<T>::kSize; v += blockDim.x) {
    StoreVec(reinterpret_cast<T*>(to + v), LoadVec(from + v * Vec<T>::kSize));
  }
}

template <typename T, bool kCentered, int kTeamWarps>
__global__ void __launch_bounds__(kForwardWarps * 32, 1)
    NormForwardStaged(NormForward<T> a, int stages, Leaves leaves) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using Team = WarpTeam<kTeamWarps, kForwardWarps>;
  constexpr int kSize = Vec<T>::kSize;
  extern __shared__ uint4 memory[];
  __shared__ uint64_t barriers[Team::kCount * kMostStages];
  __shared__ float shared[TeamSums<Team, 1>::kShared];
  constexpr int kWeights = kCentered ? 2 : 1;
  RowRing<T, Team, 1> ring{{a.x}, 1, stages, a.rows, a.columns, leaves};
  HoldWeights(memory, a.w, a.columns);
  if constexpr (kCentered) HoldWeights(memory + a.columns / kSize, a.b, a.columns);
  ring.Begin(memory + kWeights * (a.columns / kSize), barriers);
  TeamSums<Team, 1> sums(shared);
  const int vecs = a.columns / kSize;
  const float over_columns = 1.0f / static_cast<float>(a.columns);
  const uint32_t w_row = sm90::Shared(memory), b_row = sm90::Shared(memory + a.columns / kSize);
  int stage = 0, parity = 0;
  for (int64_t row = Team::FirstRow(); row < a.rows; row += Team::Step()) {
    Vec<T> x[kStagedVecs];
    float sum[1] = {}, mean = 0;
    sm90::Wait(ring.arrived + stage, parity);
    const uint32_t place = ring.Row(stage, 0);
    ForEachVector<Team>(vecs, [&](int i, int v) {
      x[i] = LoadSharedVec<T>(place, v);
#pragma unroll
      for (int j = 0; j < kSize; ++j) sum[0] += kCentered ? x[i][j] : x[i][j] * x[i][j];
    });
    sums.Add(sum);
    if (Team::Thread() == 0) ring.Load(stage, row + stages * Team::Step());
    if (++stage == stages) stage = 0, parity ^= 1;
    if constexpr (kCentered) {
      mean = sum[0] * over_columns;
      sum[0] = 0;
      ForEachVector<Team>(vecs, [&](int i, int) {
#pragma unroll
        for (int j = 0; j < kSize; ++j) sum[0] += (x[i][j] - mean) * (x[i][j] - mean);
      });
      sums.Add(sum);
    }
    const float rstd = 1.0f / sqrtf(sum[0] * over_columns + a.eps);
    ForEachVector<Team>(vecs, [&](int i, int v) {
      const Vec<T> w = LoadSharedVec<T>(w_row, v);
      Vec<T> b = {};
      float y[kSize];
      if constexpr (kCentered) b = LoadSharedVec<T>(b_row, v);
#pragma unroll
      for (int j = 0; j < kSize; ++j) {
        y[j] = (x[i][j] - mean) * rstd * w[j] + (kCentered ? b[j] : 0.0f);
      }
      StoreVec(a.y + row * a.columns + v * kSize, Rounded<T>(y));
    });
    if (Team::Thread() == 0) {
      a.rstd[row] = rstd;
      if constexpr (kCentered) a.mean[row] = mean;
    }
  }
#endif
}

// The teams' parts of a column sum, added in their order, to out[columns]. All threads of the block.
template <typename Team, int kSize>
__device__ __forceinline__ void AddTeams(const float (&part)[kStagedVecs][kSize], int columns, float* shared,
                                         float* out) {
  __syncthreads();
  ForEachVector<Team>(columns / kSize, [&](int i, int v) {
    float* const at = shared + Team::Index() * columns + v * kSize;
#pragma unroll
    for (int j = 0; j < kSize; j += 4) {
      *reinterpret_cast<float4*>(at + j) = make_float4(part[i][j], part[i][j + 1], part[i][j + 2], part[i][j + 3]);
    }
  });
  __syncthreads();
  for (int c = threadIdx.x; c < columns; c += Team::kBlockThreads) {
    float sum = shared[c];
#pragma unroll
    for (int t = 1; t < Team::kCount; ++t) sum += shared[t * columns + c];
    out[c] = sum;
  }
}

// dx is wanted, and r may be.
template <typename T, int kColumnSums, int kTeamWarps>
__global__ void __launch_bounds__(kBackwardWarps<kColumnSums> * 32, 1)
    NormBackwardStaged(NormBackward<T> a, int stages, Leaves leaves) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using Team = WarpTeam<kTeamWarps, kBackwardWarps<kColumnSums>>;
  constexpr bool kCentered = kColumnSums > 1;
  constexpr int kSize = Vec<T>::kSize, kSums = kCentered ? 2 : 1;
  extern __shared__ uint4 memory[];
  __shared__ uint64_t barriers[Team::kCount * kMostStages];
  __shared__ float shared[TeamSums<Team, kSums>::kShared];
  RowRing<T, Team, 3> ring{{a.dy, a.x, a.r}, a.r != nullptr ? 3 : 2, stages, a.rows, a.columns, leaves};
  HoldWeights(memory, a.w, a.columns);
  ring.Begin(memory + a.columns / kSize, barriers);
  TeamSums<Team, kSums> team_sums(shared);
  const int vecs = a.columns / kSize;
  const float over_columns = 1.0f / static_cast<float>(a.columns);
  const uint32_t w_row = sm90::Shared(memory);
  float dw[kStagedVecs][kSize] = {}, db[kStagedVecs][kSize] = {}, dx_sum[kStagedVecs][kSize] = {};
  int64_t row = Team::FirstRow();
  float rstd = 0, mean = 0;
  if (row < a.rows) {
    rstd = a.rstd[row];
    if constexpr (kCentered) mean = a.mean[row];
  }
  for (int stage = 0, parity = 0, before = 0; row < a.rows; row += Team::Step()) {
    float next_rstd = 0, next_mean = 0;  // long before they are needed
    if (row + Team::Step() < a.rows) {
      next_rstd = a.rstd[row + Team::Step()];
      if constexpr (kCentered) next_mean = a.mean[row + Team::Step()];
    }
    sm90::Wait(ring.arrived + stage, parity);
    const uint32_t dy_row = ring.Row(stage, 0), x_row = ring.Row(stage, 1), r_row = ring.Row(stage, 2);
    float sums[kSums] = {};  // of dy u w, and of dy w
    ForEachVector<Team>(vecs, [&](int i, int v) {
      const Vec<T> dy = LoadSharedVec<T>(dy_row, v), x = LoadSharedVec<T>(x_row, v), w = LoadSharedVec<T>(w_row, v);
#pragma unroll
      for (int j = 0; j < kSize; ++j) {
        const float d = dy[j], du = d * (kCentered ? x[j] - mean : x[j]);
        dw[i][j] += du * rstd;
        sums[0] += du * w[j];
        if constexpr (kCentered) {
          db[i][j] += d;
          sums[1] += d * w[j];
        }
      }
    });
    team_sums.Add(sums);
    if (Team::Thread() == 0 && row != Team::FirstRow()) ring.Load(before, row + (stages - 1) * Team::Step());
    const float c = -(rstd * sums[0] * over_columns) * rstd * rstd;
    const float e = kCentered ? -rstd * sums[kSums - 1] * over_columns : 0.0f;
    ForEachVector<Team>(vecs, [&]([[maybe_unused]] int i, int v) {
      const Vec<T> dy = LoadSharedVec<T>(dy_row, v), x = LoadSharedVec<T>(x_row, v), w = LoadSharedVec<T>(w_row, v);
      Vec<T> r = {};
      float dx[kSize];
      if (a.r != nullptr) r = LoadSharedVec<T>(r_row, v);
#pragma unroll
      for (int j = 0; j < kSize; ++j) {
        const float u = kCentered ? x[j] - mean : x[j], rest = kCentered ? r[j] + e : r[j];
        dx[j] = rstd * (dy[j] * w[j]) + (u * c + rest);
        if constexpr (kColumnSums > 2) dx_sum[i][j] += dx[j];
      }
      StoreVec(a.dx + row * a.columns + v * kSize, Rounded<T>(dx));
    });
    rstd = next_rstd, mean = next_mean;
    before = stage;
    if (++stage == stages) stage = 0, parity ^= 1;
  }
  if (a.partial == nullptr) return;
  AllowNext();  // who adds the blocks' parts
  float* const out = a.partial + blockIdx.x * int64_t{kColumnSums} * a.columns;
  float* const shared_sums = reinterpret_cast<float*>(memory);
  AddTeams<Team>(dw, a.columns, shared_sums, out);
  if constexpr (kColumnSums > 1) AddTeams<Team>(db, a.columns, shared_sums, out + a.columns);
  if constexpr (kColumnSums > 2) AddTeams<Team>(dx_sum, a.columns, shared_sums, out + 2 * a.columns);
#endif
}

}  // namespace strata
