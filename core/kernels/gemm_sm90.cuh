#pragma once
// The matrix product of core/kernels/gemm_sm90.h on one Hopper GPU. A block owns 128 x 256 of D; the two blocks of a cluster along m share
// B's tile, the kWide (1 or 2) blocks along n A's tile: each loads a part of it into all. In a block one warp feeds four stages of
// shared memory, and two warpgroups multiply 64 rows each. Blocks stay for the whole product and take tiles in turn; what does
// not fill a last wave can be cut along k so that all blocks end together (stream-K: Osama et al. 2023): partial sums go through the
// workspace, and who holds k = 0 adds them in order, so bits repeat.

#include "core/kernels/cuda_util.cuh"
#include "core/kernels/gemm_sm90_schedule.h"
#include "core/kernels/sm90.cuh"

// Blocks of a cluster; other GPUs, for which the kernel is empty, have none.
#if defined(__CUDA_ARCH__) && !defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define STRATA_CLUSTER(n)
#pragma nv_diag_suppress 177
#else
#define STRATA_CLUSTER(n) __cluster_dims__(n, 1, 1)
#endif

namespace strata::sm90 {

inline constexpr int kTileM = 128, kTileN = 256, kTileK = 64, kStages = 4, kThreads = 384;
inline constexpr int kABytes = kTileM * kTileK * 2, kBBytes = kTileN * kTileK * 2, kStageBytes = kABytes + kBBytes;
inline constexpr int kChunkBytes = 16 * 64 * 2;  // of a warp's staging: 16 rows of 64 bf16
inline constexpr int kSharedBytes = kStages * kStageBytes + 16 * kChunkBytes + (2 * kStages + 8) * 8 + 1024;
inline constexpr int kPartFloats = kTileM * kTileN;

enum class Epilogue {
  kRound,     // D = bf16(A B + C + bias)
  kFloat32,   // D (+)= A B
  kSwiglu,    // B^T is gate's rows, then up's: D = bf16(A gate | A up), E = silu(D's gate) D's up
  kSwigluDx,  // H = bf16(A B); D = the gradient of swiglu by gate | up, from H, gate and up
};

struct GemmArgs {
  CUtensorMap a, b, d;
  CUtensorMap d_up, e;       // kSwiglu, kSwigluDx: d and d_up are D's halves, [m, n] each
  CUtensorMap gate, up;      // kSwigluDx
  const CudaBF16 *c, *bias;  // or null
  float* d32;                // of kFloat32
  bool accumulate;
  int m, n;  // of kSwiglu, n is the width of E
  TileGrid grid;
  float* parts;  // [blocks, kPartFloats]
  int* ready;    // [blocks, 2]: whether a warpgroup's partial sums are written
};

struct SharedMemory {
  uint8_t* stages;
  uint8_t* staging;
  uint64_t *full, *empty, *loaded;  // a stage's; a warp's staging's
  __device__ explicit SharedMemory(uint8_t* raw) {
    stages = reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(raw) + 1023) & ~uintptr_t{1023});
    staging = stages + kStages * kStageBytes;
    full = reinterpret_cast<uint64_t*>(staging + 16 * kChunkBytes);
    empty = full + kStages;
    loaded = empty + kStages;
  }
};

// A block's place in its cluster, and its tile in D. Of kSwiglu columns are E's: the tile's 256 are 128 of gate and 128 of up.
template <Epilogue kEpilogue, int kWide>
struct Place {
  static constexpr int kBlocks = 2 * kWide, kColumns = kEpilogue == Epilogue::kSwiglu ? kTileN / 2 : kTileN;
  int rank = static_cast<int>(ClusterRank()), m = rank % 2, n = rank / 2;
  __device__ int Row(const Segment& s) const { return (s.m * 2 + m) * kTileM; }
  __device__ int Column(const Segment& s) const { return (s.n * kWide + n) * kColumns; }
};

template <Major kA, Major kB, Epilogue kEpilogue, int kWide>
__device__ __forceinline__ void Produce(const GemmArgs& args, const SharedMemory& s, Schedule schedule) {
  const Place<kEpilogue, kWide> place;
  const auto share_a = static_cast<uint16_t>(5 << place.m), share_b = static_cast<uint16_t>(3 << 2 * place.n);
  int stage = 0;
  uint32_t parity = 1;  // all stages begin empty
  for (Segment work; schedule.Next(work);) {
    const int m = place.Row(work), column = place.Column(work);
    const int n = kEpilogue == Epilogue::kSwiglu ? place.m * args.n + column : column + place.m * kTileN / 2;
    for (int k = work.first; k < work.end; ++k) {
      Wait(&s.empty[stage], parity);
      uint8_t* a = s.stages + stage * kStageBytes;
      uint8_t* b = a + kABytes + place.m * kBBytes / 2;
      uint64_t* full = &s.full[stage];
      ArriveExpecting(full, kStageBytes);
      if constexpr (kWide == 2) {
        uint8_t* half = a + place.n * kABytes / 2;
        const int row = m + place.n * kTileM / 2;
        LoadTileToAll(half, &args.a, full, kA == Major::kK ? k * kTileK : row, kA == Major::kK ? row : k * kTileK,
                      share_a);
      } else if constexpr (kA == Major::kK) {
        LoadTile(a, &args.a, full, k * kTileK, m);
      } else {
        LoadTile(a, &args.a, full, m, k * kTileK);
        LoadTile(a + kABytes / 2, &args.a, full, m + 64, k * kTileK);
      }
      if constexpr (kB == Major::kK) {
        LoadTileToAll(b, &args.b, full, k * kTileK, n, share_b);
      } else {
        LoadTileToAll(b, &args.b, full, n, k * kTileK, share_b);
        LoadTileToAll(b + kBBytes / 4, &args.b, full, n + 64, k * kTileK, share_b);
      }
      if (++stage == kStages) {
        stage = 0;
        parity ^= 1;
      }
    }
  }
}

// Partial sums of a block lie at its slot: part x blocks of a cluster + rank.
__device__ __forceinline__ float4* PartOf(const GemmArgs& args, int slot, int thread) {
  return reinterpret_cast<float4*>(args.parts + static_cast<int64_t>(slot) * kPartFloats) + thread;
}
__device__ __forceinline__ void WritePart(const GemmArgs& args, const float (&d)[128], int slot, int thread) {
  float4* to = PartOf(args, slot, thread);
#pragma unroll
  for (int i = 0; i < 32; ++i) to[i * 256] = make_float4(d[4 * i], d[4 * i + 1], d[4 * i + 2], d[4 * i + 3]);
  __threadfence();
  const int group = thread / 128;
  NamedBarrier(1 + group, 128);
  if (thread % 128 == 0) atomicExch(&args.ready[slot * 2 + group], 1);
}
__device__ __forceinline__ void AddPart(const GemmArgs& args, float (&d)[128], int slot, int thread) {
  const int* ready = &args.ready[slot * 2 + thread / 128];
  int is = 0;
  while (is == 0) asm volatile("ld.acquire.gpu.global.b32 %0, [%1];" : "=r"(is) : "l"(ready) : "memory");
  const float4* from = PartOf(args, slot, thread);
#pragma unroll
  for (int i = 0; i < 32; ++i) {
    const float4 v = __ldcg(from + i * 256);
    d[4 * i] += v.x;
    d[4 * i + 1] += v.y;
    d[4 * i + 2] += v.z;
    d[4 * i + 3] += v.w;
  }
}

__device__ __forceinline__ uint32_t Pack(float x, float y) {
  const __nv_bfloat162 v = __floats2bfloat162_rn(x, y);
  return *reinterpret_cast<const uint32_t*>(&v);
}
__device__ __forceinline__ float2 Unpack(uint32_t v) {
  return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(&v));
}

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
          r < args.m && c < args.n ? __ldg(reinterpret_cast<const uint32_t*>(x + static_cast<int64_t>(r) * args.n + c))
                                   : 0;
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

__device__ __forceinline__ uint32_t Swiglu(uint32_t gate, uint32_t up) {
  const float2 g = Unpack(gate), u = Unpack(up);
  return Pack(g.x * Sigmoid<CudaBF16>(g.x) * u.x, g.y * Sigmoid<CudaBF16>(g.y) * u.y);
}

// A warp's staging: two chunks, and the barrier of loads into it.
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
  const float sx = Sigmoid<CudaBF16>(g.x), sy = Sigmoid<CudaBF16>(g.y);
  gate = Pack(d.x * u.x * sx * (1.0f + g.x * (1.0f - sx)), d.y * u.y * sy * (1.0f + g.y * (1.0f - sy)));
  up = Pack(d.x * g.x * sx, d.y * g.y * sy);
}
// They become the gradients in place, and these go to D.
__device__ __forceinline__ void StoreGateUp(uint32_t zero, const GemmArgs& args, const WarpMemory& w, Tile& tile,
                                            const uint32_t* dh, int column) {
  const int lane = threadIdx.x % 32, r = lane % 16;
  Wait(w.loaded, tile.parity);
  tile.parity ^= 1;
  const uint32_t line = Shared(w.staging) + r * 128;
#pragma unroll
  for (int j = 0; j < 8; j += 2) {
    const uint32_t at = line + ((j + lane / 16) ^ (r % 8)) * 16;
    uint32_t gate[4], up[4];
    LoadMatrices(gate, at);
    LoadMatrices(up, at + kChunkBytes);
#pragma unroll
    for (int i = 0; i < 4; ++i) SwigluDx(dh[2 * j + i] ^ zero, gate[i], up[i]);
    StoreMatrices(at, gate[0], gate[1], gate[2], gate[3]);
    StoreMatrices(at + kChunkBytes, up[0], up[1], up[2], up[3]);
  }
  FenceToAsync();
  __syncwarp();
  if (lane == 0) {
    StoreTile(&args.d, w.staging, column, tile.row);
    StoreTile(&args.d_up, w.staging + kChunkBytes, column, tile.row);
    CommitStores();
  }
}

// What is done with a tile beside the next one's products, a step in every block of k. `zero` is 0, which the compiler does not know: what
// depends on the tile alone it would compute before that loop, for all steps, and registers are short.
template <Epilogue kEpilogue>
inline constexpr int kStoreSteps = 0;
template <>
inline constexpr int kStoreSteps<Epilogue::kRound> = 4;
template <>
inline constexpr int kStoreSteps<Epilogue::kSwiglu> = 8;
template <>
inline constexpr int kStoreSteps<Epilogue::kSwigluDx> = 8;
template <Epilogue kEpilogue, int kStep>
__device__ __forceinline__ void StoreStep(uint32_t zero, const GemmArgs& args, const WarpMemory& w, Tile& tile) {
  if constexpr (kEpilogue == Epilogue::kSwigluDx) {
    constexpr int kChunk = kStep / 2;
    if constexpr (kStep % 2 == 0) {
      LoadGateUp(args, w, tile, tile.column + kChunk * 64);
    } else {
      StoreGateUp(zero, args, w, tile, tile.packed + kChunk * 16, tile.column + kChunk * 64);
    }
  } else if constexpr (kStep < 4) {  // kSwiglu: gate, gate, up, up
    uint8_t* chunk = w.staging + kStep % 2 * kChunkBytes;
    BeginChunk<1>();
    WriteChunk<0, 8>(chunk, [&](int i) { return tile.packed[kStep * 16 + i]; });
    if constexpr (kEpilogue == Epilogue::kRound) {
      EndChunk(&args.d, chunk, tile.column + kStep * 64, tile.row);
    } else {
      EndChunk(kStep < 2 ? &args.d : &args.d_up, chunk, tile.column + kStep % 2 * 64, tile.row);
    }
  } else {  // E, half a chunk a step: registers are short
    constexpr int kChunk = (kStep - 4) / 2, kHalf = kStep % 2;
    uint8_t* chunk = w.staging + kChunk * kChunkBytes;
    if constexpr (kHalf == 0) BeginChunk<1>();
    WriteChunk<kHalf * 4, kHalf * 4 + 4>(chunk, [&](int i) {
      return Swiglu(tile.packed[kChunk * 16 + i] ^ zero, tile.packed[(kChunk + 2) * 16 + i] ^ zero);
    });
    if constexpr (kHalf == 1) EndChunk(&args.e, chunk, tile.column + kChunk * 64, tile.row);
  }
}
template <Epilogue kEpilogue, int kStep = 0>
__device__ __forceinline__ void StoreAt(int step, uint32_t zero, const GemmArgs& args, const WarpMemory& w,
                                        Tile& tile) {
  if constexpr (kStep < kStoreSteps<kEpilogue>) {
    if (step == kStep) StoreStep<kEpilogue, kStep>(zero, args, w, tile);
    StoreAt<kEpilogue, kStep + 1>(step, zero, args, w, tile);
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

__device__ __forceinline__ void AddBias(float (&d)[128], const CudaBF16* bias, int n, int column) {
#pragma unroll
  for (int j = 0; j < 32; ++j) {
    if (column + 8 * j >= n) continue;
    const float2 b = Unpack(__ldg(reinterpret_cast<const uint32_t*>(bias + column + 8 * j)));
    d[4 * j] += b.x;
    d[4 * j + 1] += b.y;
    d[4 * j + 2] += b.x;
    d[4 * j + 3] += b.y;
  }
}

// The sums, with C (which tile holds) and bias, into tile.
__device__ __forceinline__ void Round(const GemmArgs& args, float (&d)[128], Tile& tile, bool adds) {
  if (args.bias != nullptr) AddBias(d, args.bias, args.n, tile.column + threadIdx.x % 4 * 2);
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

// A warpgroup is done with a stage: told to the blocks that load into it, itself, along m and along n.
template <int kWide>
__device__ __forceinline__ void Release(uint64_t* empty, int rank) {
  const int t = threadIdx.x % 128;
  if (t <= kWide) ArriveAt(empty, rank ^ t);
}

template <Major kA, Major kB, Epilogue kEpilogue, int kWide>
__device__ __forceinline__ void Consume(const GemmArgs& args, const SharedMemory& s, Schedule schedule) {
  const Place<kEpilogue, kWide> place;
  const int group = threadIdx.x / 128 - 1, thread = threadIdx.x - 128;
  const WarpMemory w{s.staging + thread / 32 * 2 * kChunkBytes, s.loaded + thread / 32};
  const uint64_t a0 = Descriptor(Shared(s.stages) + group * kABytes / 2, kABytes / 2),
                 b0 = Descriptor(Shared(s.stages) + kABytes, kBBytes / 4);
  constexpr int kSteps = kStoreSteps<kEpilogue>;
  const bool adds = kEpilogue == Epilogue::kRound && args.c != nullptr;
  int stage = 0;
  uint32_t parity = 0;
  float d[128];
  Tile tile;
  int stored = kSteps;  // steps done of the tile before
  for (Segment work; schedule.Next(work);) {
    const int row = place.Row(work) + thread / 32 * 16, column = place.Column(work);
    for (int k = work.first; k < work.end; ++k) {
      Wait(&s.full[stage], parity);
      const uint64_t a = a0 + stage * (kStageBytes / 16), b = b0 + stage * (kStageBytes / 16);
      WgmmaFence();
#pragma unroll
      for (int i = 0; i < kTileK / 16; ++i) {
        Wgmma64x256<kA, kB>(d, a + i * StepOf(kA), b + i * StepOf(kB), k > work.first || i > 0);
      }
      WgmmaCommit();
      if (k > work.first) {  // the product before this one is done with its stage
        WgmmaWait<1>();
        Release<kWide>(&s.empty[stage == 0 ? kStages - 1 : stage - 1], place.rank);
      }
      if (++stage == kStages) {
        stage = 0;
        parity ^= 1;
      }
      if (adds && k == work.first) PrefetchC(args, row, column);
      if (stored < kSteps) StoreAt<kEpilogue>(stored++, stage >> 31, args, w, tile);
    }
    while (stored < kSteps) StoreAt<kEpilogue>(stored++, stage >> 31, args, w, tile);
    tile.row = row;
    tile.column = column;
    WgmmaWait<0>();
    FenceRegisters(d);
    Release<kWide>(&s.empty[stage == 0 ? kStages - 1 : stage - 1], place.rank);
    if (work.first > 0) {
      WritePart(args, d, schedule.part() * place.kBlocks + place.rank, thread);
      continue;
    }
    if (work.end < args.grid.k_blocks) {
      for (int p = schedule.part() + 1, last = schedule.LastPart(); p <= last; ++p) {
        if (schedule.HasPart(p)) AddPart(args, d, p * place.kBlocks + place.rank, thread);
      }
    }
    if constexpr (kEpilogue == Epilogue::kFloat32) {
      StoreFloats(args, d, row + thread % 32 / 4, column + thread % 4 * 2);
    } else {
      if (adds) {
        LoadChunk<0>(tile, args.c, args);
        LoadChunk<1>(tile, args.c, args);
        LoadChunk<2>(tile, args.c, args);
        LoadChunk<3>(tile, args.c, args);
      }
      Round(args, d, tile, adds);
      stored = 0;
    }
  }
  while (stored < kSteps) StoreAt<kEpilogue>(stored++, stage >> 31, args, w, tile);
  if (thread % 32 == 0) WaitStoresRead<0>();
}

template <Major kA, Major kB, Epilogue kEpilogue, int kWide>
__global__ void STRATA_CLUSTER(2 * kWide) __launch_bounds__(kThreads, 1)
    GemmKernel(const __grid_constant__ GemmArgs args) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ uint8_t raw[];
  const SharedMemory s(raw);
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      BarrierInit(&s.full[i], 1);
      BarrierInit(&s.empty[i], 2 * (1 + kWide));  // as Release()
    }
    for (int i = 0; i < 8; ++i) BarrierInit(&s.loaded[i], 1);
    FenceBarrierInit();
    PrefetchMap(&args.a);
    PrefetchMap(&args.b);
  }
  ClusterSync();
  const Schedule schedule(args.grid, static_cast<int>(gridDim.x) / (2 * kWide),
                          static_cast<int>(blockIdx.x) / (2 * kWide));
  if (threadIdx.x < 128) {
    GiveRegisters<40>();
    if (threadIdx.x == 0) Produce<kA, kB, kEpilogue, kWide>(args, s, schedule);
  } else {
    TakeRegisters<232>();
    Consume<kA, kB, kEpilogue, kWide>(args, s, schedule);
  }
  ClusterSync();  // the other block may still write to this one's memory and barriers
#endif
}

}  // namespace strata::sm90
