#pragma once
// Gradients of queries and keys, turned back (core/ops/rope.h) before they are rounded, the only time. A row of an accumulator of kD
// columns is of the four lanes of a quad: x[4 j + 2 r + e] is column 8 j + 2 (lane % 4) + e of row r of two, 8 apart; its partner, kD / 2
// columns on, is the same thread's.

#include "core/kernels/attention_sm90_bwd.cuh"
#include "core/kernels/rope.cuh"

namespace strata::sm90 {

// {cosine, sine} of columns 8 j + 2 (lane % 4) and the next, j in [first, first + kCount), of a row of batch row b. Rows from `rows` on read as
// the last.
template <int kD, int kCount>
__device__ __forceinline__ void LoadAngles(const BackwardArgs& a, int b, int row, int rows, int first,
                                           float4 (&angles)[kCount]) {
  const float4* const from =
      a.angles + (int64_t{b} * a.angle_stride + min(row, rows - 1)) * (kD / 4) + 4 * first + threadIdx.x % 4;
#pragma unroll
  for (int j = 0; j < kCount; ++j) angles[j] = LoadConstant(from + 4 * j);
}

// Two columns and their partners.
__device__ __forceinline__ void TurnTwo(float& u0, float& u1, float& v0, float& v1, float4 angles) {
  TurnPair(u0, v0, make_float2(angles.x, angles.y));
  TurnPair(u1, v1, make_float2(angles.z, angles.w));
}

// Row r of an accumulator.
template <int kD>
__device__ __forceinline__ void TurnRow(float (&x)[kD / 2], int r, const float4 (&angles)[kD / 16]) {
#pragma unroll
  for (int j = 0; j < kD / 16; ++j) {
    const int u = 4 * j + 2 * r, v = u + kD / 4;
    TurnTwo(x[u], x[u + 1], x[v], x[v + 1], angles[j]);
  }
}
// Both, the first of which is `row`, where there are angles.
template <int kD>
__device__ __forceinline__ void TurnRows(const BackwardArgs& a, int b, int row, int rows, float (&x)[kD / 2]) {
  if (a.angles == nullptr) return;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float4 angles[kD / 16];
    LoadAngles<kD>(a, b, row + 8 * r, rows, 0, angles);
    TurnRow<kD>(x, r, angles);
  }
}

// The same with angles that were loaded before they are of use.
template <int kD>
struct RowAngles {
  float4 angles[2][kD / 16];

  __device__ __forceinline__ void Load(const BackwardArgs& a, int b, int row, int rows) {
    if (a.angles == nullptr) return;
    LoadAngles<kD>(a, b, row, rows, 0, angles[0]);
    LoadAngles<kD>(a, b, row + 8, rows, 0, angles[1]);
  }
  __device__ __forceinline__ void Turn(const BackwardArgs& a, float (&x)[kD / 2]) const {
    if (a.angles == nullptr) return;
    TurnRow<kD>(x, 0, angles[0]);
    TurnRow<kD>(x, 1, angles[1]);
  }
};

}  // namespace strata::sm90
