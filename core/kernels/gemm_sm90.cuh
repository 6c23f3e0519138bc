#pragma once
// The matrix product of core/kernels/gemm_sm90.h on one Hopper GPU. A block owns 128 x 256 of D; the two blocks of a cluster along m share
// B's tile, the kWide (1 or 2) blocks along n A's tile: each loads a part of it into all. In a block one warp feeds four stages of
// shared memory, and two warpgroups multiply 64 rows each. Blocks stay for the whole product and take tiles in turn; what does
// not fill a last wave can be cut along k so that all blocks end together (stream-K: Osama et al. 2023): partial sums go through the
// workspace, and who holds k = 0 adds them in order, so bits repeat.

#include "core/kernels/gemm_sm90_epilogue.cuh"
#include "core/kernels/sm90_wgmma.cuh"

// Blocks of a cluster; other GPUs, for which the kernel is empty, have none.
#if defined(__CUDA_ARCH__) && !defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define STRATA_CLUSTER(n)
#else
#define STRATA_CLUSTER(n) __cluster_dims__(n, 1, 1)
#endif

namespace strata::sm90 {

inline constexpr int kTileM = 128, kTileN = 256, kTileK = 64, kStages = 4, kThreads = 384;
inline constexpr int kABytes = kTileM * kTileK * 2, kBBytes = kTileN * kTileK * 2, kStageBytes = kABytes + kBBytes;
inline constexpr int kSharedBytes = kStages * kStageBytes + 16 * kChunkBytes + (2 * kStages + 16) * 8 + 1024;
inline constexpr int kPartFloats = kTileM * kTileN;

struct SharedMemory {
  uint8_t* stages;
  uint8_t* staging;
  uint64_t *full, *empty, *loaded;  // a stage's; a chunk's of a warp's staging
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
  Ring<kStages> stages;
  for (Segment work; schedule.Next(work);) {
    const int m = place.Row(work), column = place.Column(work);
    const int n = kEpilogue == Epilogue::kSwiglu ? place.m * args.n + column : column + place.m * kTileN / 2;
    for (int k = work.first; k < work.end; ++k) {
      Wait(&s.empty[stages.slot], stages.parity ^ 1);
      uint8_t* a = s.stages + stages.slot * kStageBytes;
      uint8_t* b = a + kABytes + place.m * kBBytes / 2;
      uint64_t* full = &s.full[stages.slot];
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
      stages.Next();
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
  const WarpMemory w{s.staging + thread / 32 * 2 * kChunkBytes, s.loaded + thread / 32 * 2};
  const uint64_t a0 = Descriptor(Shared(s.stages) + group * kABytes / 2, kABytes / 2),
                 b0 = Descriptor(Shared(s.stages) + kABytes, kBBytes / 4);
  constexpr int kSteps = kStoreSteps<kEpilogue>;
  const bool adds = kEpilogue == Epilogue::kRound && args.c != nullptr;
  Ring<kStages> stages;
  float d[128];
  Tile tile;
  int stored = kSteps;  // steps done of the tile before
  if constexpr (kSquares<kEpilogue>) ThreadSquares() = 0;
  for (Segment work; schedule.Next(work);) {
    const int row = place.Row(work) + thread / 32 * 16, column = place.Column(work);
    for (int k = work.first; k < work.end; ++k) {
      Wait(&s.full[stages.slot], stages.parity);
      const uint64_t a = a0 + stages.slot * (kStageBytes / 16), b = b0 + stages.slot * (kStageBytes / 16);
      WgmmaFence();
#pragma unroll
      for (int i = 0; i < kTileK / 16; ++i) {
        Wgmma<kA, kB>(d, a + i * StepOf(kA), b + i * StepOf(kB), k > work.first || i > 0);
      }
      WgmmaCommit();
      if (k > work.first) {  // the product before this one is done with its stage
        WgmmaWait<1>();
        Release<kWide>(&s.empty[stages.Before()], place.rank);
      }
      stages.Next();
      if (adds && k == work.first) PrefetchC(args, row, column);
      if (stored < kSteps && (k & args.step_mask) == 0) StoreAt<kEpilogue>(stored++, stages.slot >> 31, args, w, tile);
    }
    while (stored < kSteps) StoreAt<kEpilogue>(stored++, stages.slot >> 31, args, w, tile);
    tile.row = row;
    tile.column = column;
    if (!kFloats<kEpilogue> && !kSquares<kEpilogue> && work.first == 0) LoadAddends(args, tile, adds);
    WgmmaWait<0>();
    FenceRegisters(d);
    Release<kWide>(&s.empty[stages.Before()], place.rank);
    if (work.first > 0) {
      WritePart(args, d, schedule.part() * place.kBlocks + place.rank, thread);
      continue;
    }
    if (work.end < args.grid.k_blocks) {
      for (int p = schedule.part() + 1, last = schedule.LastPart(); p <= last; ++p) {
        if (schedule.HasPart(p)) AddPart(args, d, p * place.kBlocks + place.rank, thread);
      }
    }
    if constexpr (kFloats<kEpilogue>) {
      StoreFloats<kEpilogue>(args, d, row, column);
      if constexpr (kSquares<kEpilogue>) AddSquares(d);
    } else {
      Round(args, d, tile, adds);
      stored = 0;
    }
  }
  while (stored < kSteps) StoreAt<kEpilogue>(stored++, stages.slot >> 31, args, w, tile);
  if (thread % 32 == 0) WaitStoresRead<0>();
  if constexpr (kSquares<kEpilogue>) WriteSquares(args);
}

template <Major kA, Major kB, Epilogue kEpilogue, int kWide>
__global__ void STRATA_CLUSTER(2 * kWide) __launch_bounds__(kThreads, 1)
    GemmKernel(const __grid_constant__ GemmArgs args) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  // Gradients, which also load, need more while they store; others are 1% faster with less.
  constexpr bool kLoads = kEpilogue == Epilogue::kSwigluDx || kEpilogue == Epilogue::kGeluDx;
  constexpr int kGives = kLoads ? 24 : 40, kTakes = kLoads ? 240 : 232;
  extern __shared__ uint8_t raw[];
  const SharedMemory s(raw);
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      BarrierInit(&s.full[i], 1);
      BarrierInit(&s.empty[i], 2 * (1 + kWide));  // as Release()
    }
    for (int i = 0; i < 16; ++i) BarrierInit(&s.loaded[i], 1);
    FenceBarrierInit();
    PrefetchMap(&args.a);
    PrefetchMap(&args.b);
  }
  ClusterSync();
  const Schedule schedule(args.grid, static_cast<int>(gridDim.x) / (2 * kWide),
                          static_cast<int>(blockIdx.x) / (2 * kWide));
  if (threadIdx.x < 128) {
    GiveRegisters<kGives>();
    if (threadIdx.x == 0) Produce<kA, kB, kEpilogue, kWide>(args, s, schedule);
  } else {
    TakeRegisters<kTakes>();
    Consume<kA, kB, kEpilogue, kWide>(args, s, schedule);
  }
  ClusterSync();  // the other block may still write to this one's memory and barriers
#endif
}

}  // namespace strata::sm90
