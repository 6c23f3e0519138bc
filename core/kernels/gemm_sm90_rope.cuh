#pragma once
// Rotary positions: heads of a tile of core/kernels/gemm_sm90.cuh are turned.

#include "core/kernels/gemm_sm90_tile.cuh"
#include "core/kernels/rope.cuh"

namespace strata::sm90 {

// kRope. Halves of a head lie kHalf columns apart, and so in one thread. {cos, sin} of columns 8 j + 2 (lane % 4) of a half come for four j
// at a time into the two chunks: 512 bytes for each j and 8 rows.
template <int kHalf>
__device__ __forceinline__ void FetchAngles(const GemmArgs& args, const WarpMemory& w, const Tile& tile, int part) {
  __syncwarp();  // all have read what was there
  if (threadIdx.x % 32 != 0) return;
  WaitStoresRead<0>();
  ArriveExpecting(w.loaded, 2 * kChunkBytes);
  const int at = tile.row % args.angle_rows / 16 * (kHalf / 32) + part;
  LoadBytes(w.staging, args.angles + at * (2 * kChunkBytes / 16), 2 * kChunkBytes, w.loaded);
}
template <int kHalf>
__device__ __forceinline__ void TurnColumns(const GemmArgs& args, const WarpMemory& w, Tile& tile, int j) {
  constexpr int kPartner = kHalf / 4;  // of packed values
  const uint32_t angles = Shared(w.staging) + j % 4 * 1024 + threadIdx.x % 32 * 16;
  const float4 a[2] = {LoadShared(angles), LoadShared(angles + 512)};
#pragma unroll
  for (int first = 0; first < 64; first += 2 * kPartner) {  // of a head
    if (tile.column + first * 4 >= args.turned) return;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      uint32_t &u = tile.packed[first + 2 * j + h], &v = tile.packed[first + 2 * j + h + kPartner];
      float2 x = Unpack(u), y = Unpack(v);
      TurnPair(x.x, y.x, make_float2(a[h].x, a[h].y));
      TurnPair(x.y, y.y, make_float2(a[h].z, a[h].w));
      u = Pack(x.x, x.y);
      v = Pack(y.x, y.y);
    }
  }
}
// Fetch; twice two j, and fetch the next; ...
template <int kHalf, int kStep>
__device__ __forceinline__ void TurnStep(const GemmArgs& args, const WarpMemory& w, Tile& tile) {
  if (tile.column >= args.turned) return;
  if constexpr (kStep % 2 == 1) {
    Wait(w.loaded, tile.parity);
    tile.parity ^= 1;
  }
  if constexpr (kStep > 0) {
    TurnColumns<kHalf>(args, w, tile, 2 * kStep - 2);
    TurnColumns<kHalf>(args, w, tile, 2 * kStep - 1);
  }
  if constexpr (kStep % 2 == 0 && kStep < kHalf / 16) FetchAngles<kHalf>(args, w, tile, kStep / 2);
}
template <Epilogue kEpilogue>
inline constexpr int kHalfHead = kEpilogue == Epilogue::kRope64    ? 32
                                 : kEpilogue == Epilogue::kRope128 ? 64
                                                                   : 0;
template <Epilogue kEpilogue>
inline constexpr int kTurnSteps = kHalfHead<kEpilogue> == 0 ? 0 : kHalfHead<kEpilogue> / 16 + 1;

}  // namespace strata::sm90
