#pragma once
// SwiGLU and its gradient, of the rounded values of a tile of core/kernels/gemm_sm90.cuh.

#include "core/kernels/gemm_sm90_tile.cuh"

namespace strata::sm90 {

__device__ __forceinline__ uint32_t Swiglu(uint32_t gate, uint32_t up) {
  const float2 g = Unpack(gate), u = Unpack(up);
  return Pack(g.x * Sigmoid(g.x) * u.x, g.y * Sigmoid(g.y) * u.y);
}

// 64 columns of gate and of up, into the two chunks.
__device__ __forceinline__ void LoadGateUp(const GemmArgs& args, const WarpMemory& w, const Tile& tile, int column) {
  if (threadIdx.x % 32 != 0) return;
  WaitStoresRead<0>();
  ArriveExpecting(w.loaded, 2 * kChunkBytes);
  LoadTile(w.staging, &args.gate, w.loaded, column, tile.row);
  LoadTile(w.staging + kChunkBytes, &args.up, w.loaded, column, tile.row);
}
// g, u -> the gradients by them, of swiglu, where dh is that of its result.
__device__ __forceinline__ void SwigluDx(uint32_t dh, uint32_t& gate, uint32_t& up) {
  const float2 d = Unpack(dh), g = Unpack(gate), u = Unpack(up);
  const float sx = Sigmoid(g.x), sy = Sigmoid(g.y), x = g.x * sx, y = g.y * sy;  // silu
  gate = Pack(d.x * u.x * (sx + (x - x * sx)), d.y * u.y * (sy + (y - y * sy)));
  up = Pack(d.x * x, d.y * y);
}
// Half a chunk each time: they become the gradients in place, and these go to D.
template <int kHalf>
__device__ __forceinline__ void StoreGateUp(uint32_t zero, const GemmArgs& args, const WarpMemory& w, Tile& tile,
                                            const uint32_t* dh, int column) {
  const int lane = threadIdx.x % 32, r = lane % 16;
  if constexpr (kHalf == 0) {
    Wait(w.loaded, tile.parity);
    tile.parity ^= 1;
  }
  const uint32_t line = Shared(w.staging) + r * 128;
#pragma unroll
  for (int j = kHalf * 4; j < kHalf * 4 + 4; j += 2) {
    const uint32_t at = line + ((j + lane / 16) ^ (r % 8)) * 16;
    uint32_t gate[4], up[4];
    LoadMatrices(gate, at);
    LoadMatrices(up, at + kChunkBytes);
#pragma unroll
    for (int i = 0; i < 4; ++i) SwigluDx(dh[2 * j + i] ^ zero, gate[i], up[i]);
    StoreMatrices(at, gate[0], gate[1], gate[2], gate[3]);
    StoreMatrices(at + kChunkBytes, up[0], up[1], up[2], up[3]);
  }
  if constexpr (kHalf == 1) {
    FenceToAsync();
    __syncwarp();
    if (lane == 0) {
      StoreTile(&args.d, w.staging, column, tile.row);
      StoreTile(&args.d_up, w.staging + kChunkBytes, column, tile.row);
      CommitStores();
    }
  }
}

}  // namespace strata::sm90
