#pragma once
// GELU and the gradients of GELU and SwiGLU as the ping-pong form of gemm_sm90_pingpong.cuh stores a tile. What is loaded comes while the
// chunk before is worked on. A chunk is sent off when half of the next one is computed: right behind the writes the fence would wait
// for them.

#include "core/kernels/gemm_sm90_epilogue.cuh"

namespace strata::sm90::pingpong {

inline constexpr int kBuffers = 3;  // chunks of a warp's staging

// 32 sums of a thread, rounded: as Tile's packed, of one chunk.
__device__ __forceinline__ void PackChunk(const float* sums, uint32_t (&packed)[16]) {
#pragma unroll
  for (int i = 0; i < 16; ++i) packed[i] = Pack(sums[2 * i], sums[2 * i + 1]);
}
// In a row of the chunk, now: the compiler would load all chunks' first.
__device__ __forceinline__ void LoadBias(const GemmArgs& args, int column, uint32_t (&bias)[8]) {
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    const int c = column + threadIdx.x % 4 * 2 + 8 * j;
    bias[j] = 0;
    if (args.bias == nullptr || c >= args.n) continue;
    asm volatile("ld.global.nc.b32 %0, [%1];" : "=r"(bias[j]) : "l"(args.bias + c));
  }
}
__device__ __forceinline__ void AddBias(float* sums, const uint32_t (&bias)[8]) {
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    const float2 b = Unpack(bias[j]);
    sums[4 * j] += b.x;
    sums[4 * j + 1] += b.y;
    sums[4 * j + 2] += b.x;
    sums[4 * j + 3] += b.y;
  }
}

// D = bf16(sums + bias) and E = gelu(D), in turn through the buffers.
template <int kParts, int kSums>
__device__ __forceinline__ void StoreGelu(uint32_t zero, const GemmArgs& args, const WarpMemory& w,
                                          float (&d)[kParts][kSums], int row, int column) {
  constexpr int kAcross = kSums / 32, kCount = kParts * kAcross;
  const auto chunk = [&](int i) { return w.staging + i % kBuffers * kChunkBytes; };
  const auto send = [&](const CUtensorMap* map, int buffer, int i) {
    EndChunk(map, chunk(buffer), column + i / kParts * 64, row + i % kParts * 64);
  };
  uint32_t bias[8];
#pragma unroll
  for (int i = 0; i < kCount; ++i) {  // down, then across
    if (i % kParts == 0) LoadBias(args, column + i / kParts * 64, bias);
    float* sums = d[i % kParts] + i / kParts * 32;
    AddBias(sums, bias);
    uint32_t pre[16], h[8];
    PackChunk(sums, pre);
    if (i > 0) send(&args.e, 2 * i - 1, i - 1);
    BeginChunk<kBuffers - 1>();
    WriteChunk<0, 8>(chunk(2 * i), [&](int x) { return pre[x]; });
#pragma unroll
    for (int x = 0; x < 8; ++x) h[x] = Gelu(pre[x] ^ zero);
    send(&args.d, 2 * i, i);
    BeginChunk<kBuffers - 1>();
    WriteChunk<0, 4>(chunk(2 * i + 1), [&](int x) { return h[x]; });
    WriteChunk<4, 8>(chunk(2 * i + 1), [&](int x) { return Gelu(pre[x] ^ zero); });
  }
  send(&args.e, 2 * kCount - 1, kCount - 1);
}

// pre, loaded a chunk ahead, becomes the gradient in place, and goes to D and to the sums of its columns.
template <int kParts, int kSums>
__device__ __forceinline__ void StoreGeluDx(uint32_t zero, const GemmArgs& args, const WarpMemory& w,
                                            const float (&d)[kParts][kSums], int row, int column) {
  constexpr int kAcross = kSums / 32, kCount = kParts * kAcross;
  const auto chunk = [&](int i) { return w.staging + i % kBuffers * kChunkBytes; };
  const auto column_of = [&](int i) { return column + i / kParts * 64; };
  const auto row_of = [&](int i) { return row + i % kParts * 64; };
  const auto load = [&](int i) {
    if (threadIdx.x % 32 != 0) return;
    WaitStoresRead<0>();
    ArriveExpecting(w.loaded, kChunkBytes);
    LoadTile(chunk(i), &args.pre, w.loaded, column_of(i), row_of(i));
  };
  float2 total{};
  const auto send = [&](int i) {
    EndChunk(&args.d, chunk(i), column_of(i), row_of(i));
    if (args.sums == nullptr) return;
    const float2 sum = SumColumns(zero, chunk(i));
    total.x += sum.x;
    total.y += sum.y;
    if (i % kParts != kParts - 1) return;
    AddColumns(args, column_of(i), total);
    total = {};
  };
  load(0);
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    uint32_t dh[16], pre[2][4];
    PackChunk(d[i % kParts] + i / kParts * 32, dh);
    Wait(w.loaded, i % 2);
    __syncwarp();  // all have read the chunk that is loaded over
    if (i + 1 < kCount) load(i + 1);
    ReadPre<0>(zero, chunk(i), pre);
    TurnPre(dh, pre);
    if (i > 0) send(i - 1);
    WritePre<0>(zero, chunk(i), pre);
    ReadPre<1>(zero, chunk(i), pre);
    TurnPre(dh + 8, pre);
    WritePre<1>(zero, chunk(i), pre);
  }
  send(kCount - 1);
}

// Of gate and up 8 rows of 64 columns each, side by side in a buffer, become the gradients in place, and these go to D.
template <int kParts, int kSums>
__device__ __forceinline__ void StoreSwigluDx(uint32_t zero, const GemmArgs& args, const WarpMemory& w,
                                              const float (&d)[kParts][kSums], int row, int column) {
  constexpr int kAcross = kSums / 32, kCount = 2 * kParts * kAcross, kUp = kChunkBytes / 2;
  const auto buffer = [&](int i) { return w.staging + i % kBuffers * kChunkBytes; };
  const auto column_of = [&](int i) { return column + i / 2 % kAcross * 64; };
  const auto row_of = [&](int i) { return row + i / 2 / kAcross * 64 + i % 2 * 8; };
  const auto load = [&](int i) {
    if (threadIdx.x % 32 != 0) return;
    WaitStoresRead<0>();
    ArriveExpecting(w.loaded, kChunkBytes);
    LoadTile(buffer(i), &args.gate, w.loaded, column_of(i), row_of(i));
    LoadTile(buffer(i) + kUp, &args.up, w.loaded, column_of(i), row_of(i));
  };
  const auto send = [&](int i) {
    FenceToAsync();
    __syncwarp();
    if (threadIdx.x % 32 != 0) return;
    StoreTile(&args.d, buffer(i), column_of(i), row_of(i));
    StoreTile(&args.d_up, buffer(i) + kUp, column_of(i), row_of(i));
    CommitStores();
  };
  const int lane = threadIdx.x % 32 ^ zero;
  load(0);
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    const float* sums = d[i / 2 / kAcross] + i / 2 % kAcross * 32 + i % 2 * 2;
    uint32_t dh[8], gate[2][4], up[2][4], at[2];
#pragma unroll
    for (int j = 0; j < 8; ++j) dh[j] = Pack(sums[4 * j], sums[4 * j + 1]);
    Wait(w.loaded, i % 2);
    __syncwarp();  // all have read the buffer that is loaded over
    if (i + 1 < kCount) load(i + 1);
#pragma unroll
    for (int q = 0; q < 2; ++q) {  // columns from 32 q on
      at[q] = Shared(buffer(i)) + lane % 8 * 128 + ((4 * q + lane / 8) ^ (lane % 8)) * 16;
      LoadMatrices(gate[q], at[q]);
      LoadMatrices(up[q], at[q] + kUp);
    }
#pragma unroll
    for (int j = 0; j < 8; ++j) SwigluDx(dh[j], gate[j / 4][j % 4], up[j / 4][j % 4]);
    if (i > 0) send(i - 1);
#pragma unroll
    for (int q = 0; q < 2; ++q) {
      StoreMatrices(at[q], gate[q][0], gate[q][1], gate[q][2], gate[q][3]);
      StoreMatrices(at[q] + kUp, up[q][0], up[q][1], up[q][2], up[q][3]);
    }
  }
  send(kCount - 1);
}

}  // namespace strata::sm90::pingpong
