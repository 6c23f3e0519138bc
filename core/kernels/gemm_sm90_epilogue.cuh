#pragma once
// What becomes of a tile of core/kernels/gemm_sm90.cuh: sums in registers, rounded and in 64 registers of each thread, are stored chunk by
// chunk while the next tile's products run; chunks go through a warp's own shared memory and the copy engine. SwiGLU is computed of
// the rounded values on the way, and heads are turned.

#include "core/kernels/cuda_util.cuh"
#include "core/kernels/gemm_sm90_schedule.h"
#include "core/kernels/rope.cuh"
#include "core/kernels/sm90.cuh"

#if defined(__CUDA_ARCH__) && !defined(__CUDA_ARCH_FEAT_SM90_ALL)
#pragma nv_diag_suppress 177  // on other GPUs kernels are empty, and what they are made of is not used
#endif

namespace strata::sm90 {

inline constexpr int kWarps = 8;                 // of a block, that multiply
inline constexpr int kChunkBytes = 16 * 64 * 2;  // of a warp's staging: 16 rows of 64 bf16

enum class Epilogue {
  kRound,     // D = bf16(A B + C + bias)
  kFloat32,   // D (+)= A B
  kSwiglu,    // B^T is gate's rows, then up's: D = bf16(A gate | A up), E = silu(D's gate) D's up
  kSwigluDx,  // H = bf16(A B); D = the gradient of swiglu by gate | up, from H, gate and up
  kRope64,    // D = bf16(A B + bias), of which heads of 64 columns are turned (core/ops/rope.h)
  kRope128,   // the same of 128
  kGelu,      // D = bf16(A B + bias); E = gelu(D), in the tanh form
  kGeluDx,    // H = bf16(A B); D = H gelu'(pre), and column sums of D
};

struct GemmArgs {
  CUtensorMap a, b, d;
  CUtensorMap d_up, e;       // kSwiglu, kSwigluDx: d and d_up are D's halves, [m, n] each; kGelu: e
  CUtensorMap gate, up;      // kSwigluDx
  CUtensorMap pre;           // kGeluDx
  CUtensorMap c_map;         // of c, for the ping-pong form
  float* sums;               // kGeluDx: each warp of the grid adds to its own row of [warps, n]; or null
  const CudaBF16 *c, *bias;  // or null
  float* d32;                // of kFloat32
  // kRope: a tiled table of rotations (rope_cuda.h); row r of D takes its row r mod angle_rows, and columns before `turned` are turned.
  const float4* angles;
  int angle_rows, turned;
  bool accumulate;
  int m, n;       // of kSwiglu, n is the width of E
  int step_mask;  // a step of a store in blocks of k of which these bits are 0
  TileGrid grid;
  float* parts;  // [blocks, kPartFloats]
  int* ready;    // [blocks, 2]: whether a warpgroup's partial sums are written
};

// What a warpgroup's 64 x 256 become in registers: packed[16 c + 2 j + h] is of chunk c (64 columns) the two columns from 8 j + 2 (lane % 4),
// in row lane / 4 + 8 h of the warp's 16. The products of the next tile run while they are stored, a chunk in every block of k.
struct Tile {
  uint32_t packed[64];
  int row = 0, column = 0;  // of the warp's first element in D
  uint32_t parity = 0;      // of the next load into its staging
};

template <int kChunk>
__device__ __forceinline__ void LoadChunk(Tile& tile, const CudaBF16* x, const GemmArgs& args) {
  const int lane = threadIdx.x % 32, row = tile.row + lane / 4, column = tile.column + kChunk * 64 + lane % 4 * 2;
#pragma unroll
  for (int j = 0; j < 8; ++j) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int r = row + 8 * h, c = column + 8 * j;
      tile.packed[kChunk * 16 + 2 * j + h] =
          r < args.m && c < args.n ? *reinterpret_cast<const uint32_t*>(x + static_cast<int64_t>(r) * args.n + c) : 0;
    }
  }
}

// 16 rows of 64 columns to the map's (column, row), through the warp's shared memory: begin, write all j from 0 to 7, end. packed(i): as
// Tile's, of one chunk.
template <int kLeft>
__device__ __forceinline__ void BeginChunk() {
  if (threadIdx.x % 32 == 0) WaitStoresRead<kLeft>();
  __syncwarp();
}
template <int kFirst, int kEnd, typename Packed>
__device__ __forceinline__ void WriteChunk(uint8_t* chunk, const Packed& packed) {
  const int lane = threadIdx.x % 32, r = lane % 16;
  const uint32_t line = Shared(chunk) + r * 128;
#pragma unroll
  for (int j = kFirst; j < kEnd; j += 2) {
    const uint32_t unit = (j + lane / 16) ^ (r % 8);
    StoreMatrices(line + unit * 16, packed(2 * j), packed(2 * j + 1), packed(2 * j + 2), packed(2 * j + 3));
  }
}
__device__ __forceinline__ void EndChunk(const CUtensorMap* map, const uint8_t* chunk, int column, int row) {
  FenceToAsync();
  __syncwarp();
  if (threadIdx.x % 32 == 0) {
    StoreTile(map, chunk, column, row);
    CommitStores();
  }
}

// One special function each, which are what steps of a store wait for; errors are below a hundredth of bf16's.
__device__ __forceinline__ float Tanh(float x) {
  float y;
  asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float Sigmoid(float x) { return 0.5f + 0.5f * Tanh(0.5f * x); }

__device__ __forceinline__ uint32_t Swiglu(uint32_t gate, uint32_t up) {
  const float2 g = Unpack(gate), u = Unpack(up);
  return Pack(g.x * Sigmoid(g.x) * u.x, g.y * Sigmoid(g.y) * u.y);
}

// A warp's staging: two chunks, and a barrier for loads into each.
struct WarpMemory {
  uint8_t* staging;
  uint64_t* loaded;
};

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

// What is done with a tile beside the next one's products, at most a step in a block of k: one is in flight then, and two warps of a
// scheduler have about 1000 instructions until it ends. `zero` is 0, which the compiler does not know: what
// depends on the tile alone it would compute before that loop, for all steps, and registers are short.
template <Epilogue kEpilogue>
inline constexpr int kStoreSteps = 0;
template <>
inline constexpr int kStoreSteps<Epilogue::kRound> = 4;
template <>
inline constexpr int kStoreSteps<Epilogue::kSwiglu> = 8;
template <>
inline constexpr int kStoreSteps<Epilogue::kSwigluDx> = 12;
template <>
inline constexpr int kStoreSteps<Epilogue::kRope64> = kTurnSteps<Epilogue::kRope64> + 4;
template <>
inline constexpr int kStoreSteps<Epilogue::kRope128> = kTurnSteps<Epilogue::kRope128> + 4;
template <>
inline constexpr int kStoreSteps<Epilogue::kGelu> = 12;
template <>
inline constexpr int kStoreSteps<Epilogue::kGeluDx> = 10;
template <Epilogue kEpilogue, int kStep>
__device__ __forceinline__ void StoreStep(uint32_t zero, const GemmArgs& args, const WarpMemory& w, Tile& tile) {
  if constexpr (kStep < kTurnSteps<kEpilogue>) {
    TurnStep<kHalfHead<kEpilogue>, kStep>(args, w, tile);
  } else if constexpr (kTurnSteps<kEpilogue> > 0) {
    StoreStep<Epilogue::kRound, kStep - kTurnSteps<kEpilogue>>(zero, args, w, tile);
  } else if constexpr (kEpilogue == Epilogue::kSwigluDx) {
    constexpr int kChunk = kStep / 3;
    if constexpr (kStep % 3 == 0) {
      LoadGateUp(args, w, tile, tile.column + kChunk * 64);
    } else {
      StoreGateUp<kStep % 3 - 1>(zero, args, w, tile, tile.packed + kChunk * 16, tile.column + kChunk * 64);
    }
  } else if constexpr (kEpilogue == Epilogue::kGeluDx) {
    if constexpr (kStep == 0) {
      LoadPre<0>(args, w, tile);
      LoadPre<1>(args, w, tile);
    } else if constexpr (kStep > 1) {  // a block of k for the loads
      StoreGeluDx<(kStep - 2) / 2, kStep % 2>(zero, args, w, tile);
    }
  } else if constexpr (kStep < 4) {  // kSwiglu: gate, gate, up, up
    uint8_t* chunk = w.staging + kStep % 2 * kChunkBytes;
    BeginChunk<1>();
    WriteChunk<0, 8>(chunk, [&](int i) { return tile.packed[kStep * 16 + i]; });
    if constexpr (kEpilogue != Epilogue::kSwiglu) {
      EndChunk(&args.d, chunk, tile.column + kStep * 64, tile.row);
    } else {
      EndChunk(kStep < 2 ? &args.d : &args.d_up, chunk, tile.column + kStep % 2 * 64, tile.row);
    }
  } else {  // E, half a chunk a step: registers are short
    constexpr int kChunk = (kStep - 4) / 2, kHalf = kStep % 2;
    uint8_t* chunk = w.staging + kChunk % 2 * kChunkBytes;
    if constexpr (kHalf == 0) BeginChunk<1>();
    WriteChunk<kHalf * 4, kHalf * 4 + 4>(chunk, [&](int i) {
      if constexpr (kEpilogue == Epilogue::kGelu) {
        return Gelu(tile.packed[kChunk * 16 + i] ^ zero);
      } else {
        return Swiglu(tile.packed[kChunk * 16 + i] ^ zero, tile.packed[(kChunk + 2) * 16 + i] ^ zero);
      }
    });
    if constexpr (kHalf == 1) EndChunk(&args.e, chunk, tile.column + kChunk * 64, tile.row);
  }
}
template <Epilogue kEpilogue, int kFirst = 0, int kEnd = kStoreSteps<kEpilogue>>
__device__ __forceinline__ void StoreAt(int step, uint32_t zero, const GemmArgs& args, const WarpMemory& w,
                                        Tile& tile) {
  if constexpr (kEnd - kFirst == 1) {
    StoreStep<kEpilogue, kFirst>(zero, args, w, tile);
  } else if constexpr (kEnd > kFirst) {
    constexpr int kMiddle = (kFirst + kEnd) / 2;
    if (step < kMiddle) {
      StoreAt<kEpilogue, kFirst, kMiddle>(step, zero, args, w, tile);
    } else {
      StoreAt<kEpilogue, kMiddle, kEnd>(step, zero, args, w, tile);
    }
  }
}
// The lines of the warp's 16 x 256 of C, into the L2 cache.
__device__ __forceinline__ void PrefetchC(const GemmArgs& args, int row, int column) {
  const int lane = threadIdx.x % 32, r = row + lane / 2, c = column + lane % 2 * 128;
  if (r >= args.m) return;
#pragma unroll
  for (int i = 0; i < 128; i += 64) {
    if (c + i < args.n) Prefetch(args.c + static_cast<int64_t>(r) * args.n + c + i);
  }
}

// Of the columns j of a lane: as Tile's packed[2 j].
__device__ __forceinline__ uint32_t BiasAt(const GemmArgs& args, const Tile& tile, int j) {
  const int column = tile.column + threadIdx.x % 4 * 2 + 8 * j;
  return column < args.n ? __ldg(reinterpret_cast<const uint32_t*>(args.bias + column)) : 0;
}
// Before the sums are there: C into tile, or where there is none the bias into packed[0] to packed[31].
__device__ __forceinline__ void LoadAddends(const GemmArgs& args, Tile& tile, bool adds) {
  if (adds) {
    LoadChunk<0>(tile, args.c, args);
    LoadChunk<1>(tile, args.c, args);
    LoadChunk<2>(tile, args.c, args);
    LoadChunk<3>(tile, args.c, args);
  } else if (args.bias != nullptr) {
#pragma unroll
    for (int j = 0; j < 32; ++j) tile.packed[j] = BiasAt(args, tile, j);
  }
}
template <typename BiasOf>
__device__ __forceinline__ void AddBias(float (&d)[128], const BiasOf& bias) {
#pragma unroll
  for (int j = 0; j < 32; ++j) {
    const float2 b = Unpack(bias(j));
    d[4 * j] += b.x;
    d[4 * j + 1] += b.y;
    d[4 * j + 2] += b.x;
    d[4 * j + 3] += b.y;
  }
}
// The sums, with what LoadAddends() loaded, into tile.
__device__ __forceinline__ void Round(const GemmArgs& args, float (&d)[128], Tile& tile, bool adds) {
  if (args.bias != nullptr) {
    if (adds) {
      AddBias(d, [&](int j) { return BiasAt(args, tile, j); });
    } else {
      AddBias(d, [&](int j) { return tile.packed[j]; });
    }
  }
#pragma unroll
  for (int i = 0; i < 64; ++i) {
    float x = d[2 * i], y = d[2 * i + 1];
    if (adds) {
      const float2 c = Unpack(tile.packed[i]);
      x += c.x;
      y += c.y;
    }
    tile.packed[i] = Pack(x, y);
  }
}

// row, column: of the thread's first element.
__device__ __forceinline__ void StoreFloats(const GemmArgs& args, const float (&d)[128], int row, int column) {
#pragma unroll
  for (int j = 0; j < 32; ++j) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int r = row + 8 * h, c = column + 8 * j;
      if (r >= args.m || c >= args.n) continue;
      float* to = args.d32 + static_cast<int64_t>(r) * args.n + c;
      const float x = d[4 * j + 2 * h], y = d[4 * j + 2 * h + 1];
      if (args.accumulate) {  // no other block adds here: the sum's order is fixed
        asm volatile("red.global.add.v2.f32 [%0], {%1, %2};" ::"l"(to), "f"(x), "f"(y) : "memory");
      } else {
        *reinterpret_cast<float2*>(to) = make_float2(x, y);
      }
    }
  }
}

}  // namespace strata::sm90
