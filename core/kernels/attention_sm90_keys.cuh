#pragma once
// What the kernels by keys of backward attention on Hopper share: a block has 128 keys, 64 each of two warpgroups, whose scores are
// computed transposed; thread t of a warpgroup, of warp w = t / 32 and lane l, has keys 16 w + l / 4 and 8 more.

#include <cmath>

#include "core/kernels/attention_sm90_bwd.cuh"

namespace strata::sm90 {

inline constexpr int kKeys = 128, kKeyWarps = 8, kKeysBox = kKeys * kBoxRowBytes;  // bytes of 64 columns of all keys

__device__ __forceinline__ int InWarpgroup() { return static_cast<int>(threadIdx.x) % 128; }

// s := p^T of the block's keys from k0, 64 `group` on, and the 2 kN queries from q0.
template <int kN>
__device__ __forceinline__ void Probabilities(const BackwardArgs& a, int k0, int group, int q0, const float* lse2,
                                              float (&s)[kN]) {
  const int column = static_cast<int>(threadIdx.x) % 4 * 2;
  if ((a.causal && k0 + kKeys - 1 > q0) || k0 + kKeys > a.t) {
    const int key = k0 + 64 * group + InWarpgroup() / 32 * 16 + InWarpgroup() % 32 / 4;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int first = key + 8 * r >= a.t ? 2 * kN : a.causal ? key + 8 * r - q0 - column : 0;  // that sees the key
#pragma unroll
      for (int j = 0; j < kN / 4; ++j) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          if (8 * j + e < first) s[4 * j + 2 * r + e] = -INFINITY;
        }
      }
    }
  }
  const float c = a.scale * kLog2E;
#pragma unroll
  for (int j = 0; j < kN / 4; ++j) {
    const float2 l = *reinterpret_cast<const float2*>(lse2 + 8 * j + column);
    s[4 * j] = Exp2(s[4 * j] * c - l.x);
    s[4 * j + 1] = Exp2(s[4 * j + 1] * c - l.y);
    s[4 * j + 2] = Exp2(s[4 * j + 2] * c - l.x);
    s[4 * j + 3] = Exp2(s[4 * j + 3] * c - l.y);
  }
}

// dp := ds^T, where p is p^T.
template <int kN>
__device__ __forceinline__ void ScoreGradient(const float (&p)[kN], const float* delta, float (&dp)[kN]) {
  const int column = static_cast<int>(threadIdx.x) % 4 * 2;
#pragma unroll
  for (int j = 0; j < kN / 4; ++j) {
    const float2 d = *reinterpret_cast<const float2*>(delta + 8 * j + column);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      dp[4 * j + 2 * r] = p[4 * j + 2 * r] * (dp[4 * j + 2 * r] - d.x);
      dp[4 * j + 2 * r + 1] = p[4 * j + 2 * r + 1] * (dp[4 * j + 2 * r + 1] - d.y);
    }
  }
}

// to += weights^T, 4 kP queries of it in registers, times `queries`. Issues.
template <int kN, int kP>
__device__ __forceinline__ void IssueOfRegisters(float (&to)[kN], uint32_t (&weights)[kP], const uint16_t* queries) {
  const uint64_t y = Descriptor(Shared(queries), 4 * kP * kBoxRowBytes);
  FenceRegisters(to), FenceRegisters(weights);
  WgmmaFence();
#pragma unroll
  for (int i = 0; i < kP / 4; ++i) WgmmaRegisters<Major::kMN>(to, weights + 4 * i, y + StepK<Major::kMN>(i, 0), 1);
  WgmmaCommit();
}
// dk += the warpgroup's rows of ds^T, of kM queries, times `queries`. Issues.
template <int kM, int kN>
__device__ __forceinline__ void IssueKeyGradient(float (&dk)[kN], const uint16_t* ds, int group,
                                                 const uint16_t* queries) {
  const uint64_t x = Descriptor(Shared(ds + group * 64 * kBoxColumns), 0),
                 y = Descriptor(Shared(queries), kM * kBoxRowBytes);
  FenceRegisters(dk);
  WgmmaFence();
#pragma unroll
  for (int i = 0; i < kM / 16; ++i) {
    Wgmma<Major::kK, Major::kMN>(dk, x + StepK<Major::kK>(i, kKeysBox), y + StepK<Major::kMN>(i, 0), 1);
  }
  WgmmaCommit();
}

// A warpgroup's 64 rows of a tile of kKeys rows, times `factor` and rounded, to shared memory: boxes of 64 columns.
template <int kN>
__device__ __forceinline__ void ShareRows(const float (&x)[kN], float factor, int group, uint16_t* to) {
  const int row = 64 * group + InWarpgroup() / 32 * 16 + InWarpgroup() % 16, chunk = InWarpgroup() % 32 / 16;
#pragma unroll
  for (int j = 0; j < kN / 4; j += 2) {
    StoreMatrices(Shared(to) + j / 8 * kKeysBox + ChunkAt(row, j % 8 + chunk),
                  Pack(x[4 * j] * factor, x[4 * j + 1] * factor), Pack(x[4 * j + 2] * factor, x[4 * j + 3] * factor),
                  Pack(x[4 * j + 4] * factor, x[4 * j + 5] * factor),
                  Pack(x[4 * j + 6] * factor, x[4 * j + 7] * factor));
  }
  FenceToAsync();
}

// A warpgroup's gradient of its keys or values, times `factor`, to rows from `row` of a head, through the rows of shared memory that held
// them. The caller waits for the stores. Uses named barrier 2 + group.
template <int kD>
__device__ __forceinline__ void StoreKeys(const float (&x)[kD / 2], float factor, int group, uint16_t* through,
                                          const CUtensorMap& map, int head, int row, int batch, int rows) {
  ShareRows(x, factor, group, through);
  NamedBarrier(2 + group, 128);
  if (InWarpgroup() == 0 && row < rows) {
#pragma unroll
    for (int b = 0; b < kD / kBoxColumns; ++b) {
      StoreBox(through + (b * kKeys + group * 64) * kBoxColumns, map, b * kBoxColumns, head, row, batch);
    }
    CommitStores();
  }
}

}  // namespace strata::sm90
