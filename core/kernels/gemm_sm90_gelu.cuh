#pragma once
// GELU in its tanh form and its gradient, of the rounded values of a tile of core/kernels/gemm_sm90.cuh, with the gradient's sums over rows.

#include "core/kernels/gemm_sm90_tile.cuh"

namespace strata::sm90 {

constexpr float kGeluSlope = 0.7978845608f, kGeluCube = 0.7978845608f * 0.044715f;  // sqrt(2 / pi)
// x (1 + tanh(u)) / 2, u = slope x + cube x^3.
__device__ __forceinline__ float GeluOf(float x) {
  const float t = Tanh(x * (kGeluSlope + kGeluCube * x * x)), half = 0.5f * x;
  return half + half * t;
}
// Its derivative: (1 + t) / 2 + x / 2 (1 - t^2) u'.
__device__ __forceinline__ float GeluSlopeAt(float x) {
  const float s = x * x, t = Tanh(x * (kGeluSlope + kGeluCube * s));
  return 0.5f + 0.5f * t + x * (0.5f * kGeluSlope + 1.5f * kGeluCube * s) * (1.0f - t * t);
}
__device__ __forceinline__ uint32_t Gelu(uint32_t pre) {
  const float2 x = Unpack(pre);
  return Pack(GeluOf(x.x), GeluOf(x.y));
}
__device__ __forceinline__ uint32_t GeluDx(uint32_t dh, uint32_t pre) {
  const float2 d = Unpack(dh), x = Unpack(pre);
  return Pack(d.x * GeluSlopeAt(x.x), d.y * GeluSlopeAt(x.y));
}

// 64 columns of pre into chunk kChunk % 2, whose last load was of kChunk - 2.
template <int kChunk>
__device__ __forceinline__ void LoadPre(const GemmArgs& args, const WarpMemory& w, const Tile& tile) {
  if (threadIdx.x % 32 != 0) return;
  uint64_t* loaded = w.loaded + kChunk % 2;
  WaitStoresRead<0>();
  ArriveExpecting(loaded, kChunkBytes);
  LoadTile(w.staging + kChunk % 2 * kChunkBytes, &args.pre, loaded, tile.column + kChunk * 64, tile.row);
}
// Of the warp's 16 rows, two columns of a lane.
__device__ __forceinline__ float2 SumColumns(uint32_t zero, const uint8_t* chunk) {
  const uint32_t lane = threadIdx.x % 32 ^ zero, at = Shared(chunk) + lane % 4 * 4;
  float2 sum{};
#pragma unroll
  for (int r = 0; r < 16; ++r) {
    uint32_t v;
    asm volatile("ld.shared.b32 %0, [%1];" : "=r"(v) : "r"(at + r * 128 + ((lane / 4) ^ (r % 8)) * 16));
    const float2 x = Unpack(v);
    sum.x += x.x;
    sum.y += x.y;
  }
  return sum;
}
__device__ __forceinline__ void AddColumns(const GemmArgs& args, int column, float2 sum) {
  column += threadIdx.x % 32 * 2;
  if (column >= args.n) return;
  float* to = args.sums + static_cast<int64_t>(blockIdx.x * kWarps + threadIdx.x / 32 - 4) * args.n + column;
  asm volatile("red.global.add.v2.f32 [%0], {%1, %2};" ::"l"(to), "f"(sum.x), "f"(sum.y) : "memory");
}
// Half a chunk, in the layout of packed values: two of the four pairs of columns 8 j, 8 (j + 1).
template <int kHalf>
__device__ __forceinline__ uint32_t PreAt(uint32_t zero, const uint8_t* chunk, int i) {
  const int lane = threadIdx.x % 32 ^ zero;
  return Shared(chunk) + lane % 16 * 128 + ((kHalf * 4 + 2 * i + lane / 16) ^ (lane % 8)) * 16;
}
template <int kHalf>
__device__ __forceinline__ void ReadPre(uint32_t zero, const uint8_t* chunk, uint32_t (&pre)[2][4]) {
#pragma unroll
  for (int i = 0; i < 2; ++i) LoadMatrices(pre[i], PreAt<kHalf>(zero, chunk, i));
}
template <int kHalf>
__device__ __forceinline__ void WritePre(uint32_t zero, uint8_t* chunk, const uint32_t (&pre)[2][4]) {
#pragma unroll
  for (int i = 0; i < 2; ++i) StoreMatrices(PreAt<kHalf>(zero, chunk, i), pre[i][0], pre[i][1], pre[i][2], pre[i][3]);
}
__device__ __forceinline__ void TurnPre(const uint32_t* dh, uint32_t (&pre)[2][4]) {
#pragma unroll
  for (int i = 0; i < 8; ++i) pre[i / 4][i % 4] = GeluDx(dh[i], pre[i / 4][i % 4]);
}
// pre becomes the gradient in place, half a chunk each time.
template <int kChunk, int kHalf>
__device__ __forceinline__ void StoreGeluDx(uint32_t zero, const GemmArgs& args, const WarpMemory& w, Tile& tile) {
  const int column = tile.column + kChunk * 64;
  uint8_t* chunk = w.staging + kChunk % 2 * kChunkBytes;
  if constexpr (kHalf == 0) {
    if constexpr (kChunk == 1 || kChunk == 2) LoadPre<kChunk + 1>(args, w, tile);
    Wait(w.loaded + kChunk % 2, kChunk / 2);  // two loads a tile
  }
  uint32_t dh[8], pre[2][4];
#pragma unroll
  for (int i = 0; i < 8; ++i) dh[i] = tile.packed[kChunk * 16 + kHalf * 8 + i] ^ zero;
  ReadPre<kHalf>(zero, chunk, pre);
  TurnPre(dh, pre);
  WritePre<kHalf>(zero, chunk, pre);
  if constexpr (kHalf == 1) {
    EndChunk(&args.d, chunk, column, tile.row);
    if (args.sums != nullptr) AddColumns(args, column, SumColumns(zero, chunk));
  }
}

}  // namespace strata::sm90
