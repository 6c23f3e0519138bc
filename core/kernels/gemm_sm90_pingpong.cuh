#pragma once
// The ping-pong form of core/kernels/gemm_sm90.cuh: each of a block's two warpgroups has a tile of its own, and they multiply in turn, a whole
// tile at a time, so that one has all the time of the other's products for what becomes of its sums: they are stored straight from
// registers. A tile is 128 x 192, or (kTall) 192 x 128; the two blocks of a cluster share the longer operand, of which each loads
// half into both.

#include "core/kernels/gemm_sm90.cuh"
#include "core/kernels/gemm_sm90_pingpong_store.cuh"

namespace strata::sm90::pingpong {

enum class Shape { kWide, kTall };
template <Shape kShape>
inline constexpr int kRows = kShape == Shape::kTall ? 192 : 128;
template <Shape kShape>
inline constexpr int kColumns = kShape == Shape::kTall ? 128 : 192;

// Whether there is this form. Half of 192 columns is not whole chunks.
template <Epilogue kEpilogue, Shape kShape>
inline constexpr bool kHas = kEpilogue == Epilogue::kRound || kEpilogue == Epilogue::kFloat32 ||
                             kEpilogue == Epilogue::kSwigluDx || kEpilogue == Epilogue::kGelu ||
                             kEpilogue == Epilogue::kGeluDx || kSquares<kEpilogue> ||
                             (kEpilogue == Epilogue::kSwiglu && kShape == Shape::kTall);

inline constexpr int kStages = 5, kStageBytes = (128 + 192) * kTileK * 2, kSlabBytes = 64 * kTileK * 2;
inline constexpr int kChunks = 3;  // of a warp's staging, which warpgroups use in turn too
inline constexpr int kSharedBytes = kStages * kStageBytes + 4 * kChunks * kChunkBytes + (2 * kStages + 4) * 8 + 1024;

struct Memory {
  uint8_t* stages;
  uint8_t* staging;
  uint64_t *full, *empty, *loaded;  // a stage's; a staging's
  __device__ explicit Memory(uint8_t* raw) {
    stages = reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(raw) + 1023) & ~uintptr_t{1023});
    staging = stages + kStages * kStageBytes;
    full = reinterpret_cast<uint64_t*>(staging + 4 * kChunks * kChunkBytes);
    empty = full + kStages;
    loaded = empty + kStages;
  }
};

// Of this block, in the cluster's tile.
template <Shape kShape>
__device__ __forceinline__ int Row(const Segment& s, int rank) {
  return (kShape == Shape::kTall ? s.m : 2 * s.m + rank) * kRows<kShape>;
}
// Of kSwiglu, E's: half the tile's columns are gate's and half are up's.
template <Epilogue kEpilogue, Shape kShape>
__device__ __forceinline__ int Column(const Segment& s, int rank) {
  constexpr int kWidth = kEpilogue == Epilogue::kSwiglu ? kColumns<kShape> / 2 : kColumns<kShape>;
  return (kShape == Shape::kTall ? 2 * s.n + rank : s.n) * kWidth;
}

// Of a cluster of two, to whom a tile of an operand goes.
enum class To { kSelf, kBoth };

// An operand's kLength rows (or columns) from `at` on, of a block of k. What goes to both blocks, each loads half of.
template <Major kMajor, To kTo, int kLength>
__device__ __forceinline__ void LoadOperand(uint8_t* to, const CUtensorMap* map, uint64_t* full, int at, int k,
                                            int rank) {
  if constexpr (kMajor == Major::kK && kTo == To::kSelf) {
    LoadTile(to, map, full, k, at);
  } else if constexpr (kMajor == Major::kK) {
    constexpr int kHalf = kLength / 2;
    LoadTileToAll(to + rank * kHalf * kTileK * 2, map, full, k, at + rank * kHalf, 3);
  } else {
#pragma unroll
    for (int i = 0; i < kLength / 64; ++i) {
      uint8_t* slab = to + i * kSlabBytes;
      if constexpr (kTo == To::kSelf) {
        LoadTile(slab, map, full, at + 64 * i, k);
      } else {
        LoadTileToAll(slab + rank * kSlabBytes / 2, map, full, at + 64 * i, k + rank * kTileK / 2, 3);
      }
    }
  }
}

template <Major kA, Major kB, Epilogue kEpilogue, Shape kShape>
__device__ __forceinline__ void Produce(const GemmArgs& args, const Memory& s, Schedule schedule) {
  constexpr bool kTall = kShape == Shape::kTall;
  const int rank = static_cast<int>(ClusterRank());
  Ring<kStages> stages;
  for (Segment work; schedule.Next(work);) {
    const int m = Row<kShape>(work, rank), n = Column<kEpilogue, kShape>(work, rank);
    for (int k = work.first; k < work.end; ++k) {
      Wait(&s.empty[stages.slot], stages.parity ^ 1);
      uint8_t* a = s.stages + stages.slot * kStageBytes;
      uint64_t* full = &s.full[stages.slot];
      ArriveExpecting(full, kStageBytes);
      LoadOperand<kA, kTall ? To::kBoth : To::kSelf, kRows<kShape>>(a, &args.a, full, m, k * kTileK, rank);
      uint8_t* b = a + kRows<kShape> * kTileK * 2;
      if constexpr (kEpilogue == Epilogue::kSwiglu) {
        static_assert(kB == Major::kK && kTall);
        LoadTile(b, &args.b, full, k * kTileK, n);
        LoadTile(b + kSlabBytes, &args.b, full, k * kTileK, args.n + n);
      } else {
        LoadOperand<kB, kTall ? To::kSelf : To::kBoth, kColumns<kShape>>(b, &args.b, full, n, k * kTileK, rank);
      }
      stages.Next();
    }
  }
}

__device__ __forceinline__ void AddBias(const GemmArgs& args, float* sums, int column) {
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    const int c = column + 8 * j + threadIdx.x % 4 * 2;
    if (c >= args.n) continue;
    const float2 b = Unpack(__ldg(reinterpret_cast<const uint32_t*>(args.bias + c)));
    sums[4 * j] += b.x;
    sums[4 * j + 1] += b.y;
    sums[4 * j + 2] += b.x;
    sums[4 * j + 3] += b.y;
  }
}

__device__ __forceinline__ void AddChunk(float* sums, const uint8_t* chunk) {
  const int lane = threadIdx.x % 32;
  const uint32_t line = Shared(chunk) + lane % 16 * 128;
#pragma unroll
  for (int j = 0; j < 8; j += 2) {
    uint32_t c[4];
    LoadMatrices(c, line + ((j + lane / 16) ^ (lane % 8)) * 16);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 v = Unpack(c[i]);
      sums[4 * j + 2 * i] += v.x;
      sums[4 * j + 2 * i + 1] += v.y;
    }
  }
}

// The sums with C and bias, rounded, a chunk of 64 columns at a time.
template <Epilogue kEpilogue, int kParts, int kSums>
__device__ __forceinline__ void StoreRounded(const GemmArgs& args, const WarpMemory& w, float (&d)[kParts][kSums],
                                             int row, int column) {
  constexpr int kAcross = kSums / 32, kCount = kParts * kAcross, kBuffers = kChunks;
  static_assert(kCount % kBuffers == 0);  // a tile begins at the first
  const auto begin = [&](int i) {
    if (threadIdx.x % 32 != 0) return;
    WaitStoresRead<kBuffers - 1>();
    if (kSquares<kEpilogue> || args.c == nullptr) return;
    ArriveExpecting(w.loaded, kChunkBytes);
    LoadTile(w.staging + i % kBuffers * kChunkBytes, &args.c_map, w.loaded, column + i % kAcross * 64,
             row + i / kAcross * 64);
  };
  begin(0);
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    uint8_t* chunk = w.staging + i % kBuffers * kChunkBytes;
    float* sums = d[i / kAcross] + i % kAcross * 32;
    if (!kSquares<kEpilogue> && args.bias != nullptr) AddBias(args, sums, column + i % kAcross * 64);
    __syncwarp();
    if (!kSquares<kEpilogue> && args.c != nullptr) {
      Wait(w.loaded, i % 2);
      AddChunk(sums, chunk);
    }
    WriteChunk<0, 8>(chunk, [&](int x) { return Pack(sums[2 * x], sums[2 * x + 1]); });
    EndChunk(&args.d, chunk, column + i % kAcross * 64, row + i / kAcross * 64);
    if constexpr (kSquares<kEpilogue>) {
      AddSquares<16>([&](int x) { return Unpack(Pack(sums[2 * x], sums[2 * x + 1])); });
    }
    if (i + 1 < kCount) begin(i + 1);
  }
}

// A part's sums of gate, then of as many columns of up. `zero`: see StoreStep().
__device__ __forceinline__ void StoreSwiglu(uint32_t zero, const GemmArgs& args, const WarpMemory& w,
                                            const float (&d)[64], int row, int column) {
  const auto gate = [&](int i) { return Pack(d[2 * i], d[2 * i + 1]); };
  const auto up = [&](int i) { return Pack(d[32 + 2 * i], d[32 + 2 * i + 1]); };
  const auto store = [&](const CUtensorMap* map, int which, const auto& packed) {
    BeginChunk<2>();
    WriteChunk<0, 8>(w.staging + which * kChunkBytes, packed);
    EndChunk(map, w.staging + which * kChunkBytes, column, row);
  };
  store(&args.d, 0, gate);
  store(&args.d_up, 1, up);
  store(&args.e, 2, [&](int i) { return Swiglu(gate(i) ^ zero, up(i) ^ zero); });
}

// A tile's sums; row, column: of the warp's first element. The staging is free before and after.
template <Epilogue kEpilogue, int kParts, int kSums>
__device__ __forceinline__ void Store(uint32_t zero, const GemmArgs& args, const WarpMemory& w,
                                      float (&d)[kParts][kSums], int row, int column) {
  static_assert(kParts * kSums / 32 % 2 == 0);  // loads into the staging: their parity is 0 again
  if constexpr (kEpilogue == Epilogue::kRound || kEpilogue == Epilogue::kRoundSquares) {
    StoreRounded<kEpilogue>(args, w, d, row, column);
  } else if constexpr (kEpilogue == Epilogue::kSwigluDx) {
    StoreSwigluDx(zero, args, w, d, row, column);
  } else if constexpr (kEpilogue == Epilogue::kGelu) {
    StoreGelu(zero, args, w, d, row, column);
  } else if constexpr (kEpilogue == Epilogue::kGeluDx) {
    StoreGeluDx(zero, args, w, d, row, column);
  } else {
#pragma unroll
    for (int part = 0; part < kParts; ++part) {
      if constexpr (kEpilogue == Epilogue::kSwiglu) {
        StoreSwiglu(zero, args, w, d[part], row + part * 64, column);
      } else {
        StoreFloats<kEpilogue>(args, d[part], row + part * 64, column);
        if constexpr (kSquares<kEpilogue>) AddSquares(d[part]);
      }
    }
  }
  if (threadIdx.x % 32 == 0) WaitStoresRead<0>();
}

// Partial sums of a tile that is cut along k, as in gemm_sm90.cuh, of one warpgroup.
template <int kParts, int kSums>
__device__ __forceinline__ void WritePart(const GemmArgs& args, const float (&d)[kParts][kSums], int slot, int group) {
  const int thread = threadIdx.x % 128;
  float4* to = PartOf(args, slot, thread);
#pragma unroll
  for (int i = 0; i < kParts * kSums / 4; ++i) {
    const float* sums = d[i / (kSums / 4)] + i % (kSums / 4) * 4;
    to[i * 128] = make_float4(sums[0], sums[1], sums[2], sums[3]);
  }
  __threadfence();
  constexpr int kFirstBarrier = 5;
  NamedBarrier(kFirstBarrier + group, 128);
  if (thread == 0) atomicExch(&args.ready[slot], 1);
}
template <int kParts, int kSums>
__device__ __forceinline__ void AddPart(const GemmArgs& args, float (&d)[kParts][kSums], int slot) {
  int is = 0;
  while (is == 0) {
    asm volatile("ld.acquire.gpu.global.b32 %0, [%1];" : "=r"(is) : "l"(&args.ready[slot]) : "memory");
  }
  const float4* from = PartOf(args, slot, threadIdx.x % 128);
#pragma unroll
  for (int i = 0; i < kParts * kSums / 4; ++i) {
    const float4 v = __ldcg(from + i * 128);
    float* sums = d[i / (kSums / 4)] + i % (kSums / 4) * 4;
    sums[0] += v.x;
    sums[1] += v.y;
    sums[2] += v.z;
    sums[3] += v.w;
  }
}

// The warpgroups' turns: to multiply, which end when the last products are issued; and to store.
enum class Turn { kMultiply = 1, kStore = 3 };  // named barriers, and the next one is the other group's
__device__ __forceinline__ void Await(Turn turn, int group) { NamedBarrier(static_cast<int>(turn) + group, 256); }
__device__ __forceinline__ void Give(Turn turn, int group) { NamedArrive(static_cast<int>(turn) + 1 - group, 256); }

template <Major kA, Major kB, Epilogue kEpilogue, Shape kShape>
__device__ __forceinline__ void Consume(const GemmArgs& args, const Memory& s, Schedule schedule) {
  constexpr int kParts = kRows<kShape> / 64, kSums = kColumns<kShape> / 2;
  const int rank = static_cast<int>(ClusterRank()), group = threadIdx.x / 128 - 1, warp = threadIdx.x / 32 - 4;
  const WarpMemory w{s.staging + warp % 4 * kChunks * kChunkBytes, s.loaded + warp % 4};
  const uint64_t a0 = Descriptor(Shared(s.stages), kSlabBytes), b0 = a0 + kParts * (kSlabBytes / 16);
  int turn = 0, begin = 0;  // tiles of the block before this one, and their blocks of k
  float d[kParts][kSums];
  if constexpr (kSquares<kEpilogue>) ThreadSquares() = 0;
  for (Segment work; schedule.Next(work); ++turn, begin += work.end - work.first) {
    if (turn % 2 != group) continue;
    Ring<kStages> stages{begin % kStages, static_cast<uint32_t>(begin / kStages % 2)};
    // All stages before its own have been full then: their barriers are at most a phase behind.
    if (turn > 0) Await(Turn::kMultiply, group);
    for (int k = work.first; k < work.end; ++k) {
      Wait(&s.full[stages.slot], stages.parity);
      const uint64_t a = a0 + stages.slot * (kStageBytes / 16), b = b0 + stages.slot * (kStageBytes / 16);
      WgmmaFence();
#pragma unroll
      for (int i = 0; i < kTileK / 16; ++i) {
#pragma unroll
        for (int part = 0; part < kParts; ++part) {
          Wgmma<kA, kB>(d[part], a + part * (kSlabBytes / 16) + i * StepOf(kA), b + i * StepOf(kB),
                        k > work.first || i > 0);
        }
      }
      WgmmaCommit();
      if (k > work.first) {  // the products before these are done with their stage
        WgmmaWait<1>();
        if (threadIdx.x % 128 < 2) ArriveAt(&s.empty[stages.Before()], threadIdx.x % 2);
      }
      stages.Next();
    }
    Give(Turn::kMultiply, group);
    WgmmaWait<0>();
#pragma unroll
    for (int part = 0; part < kParts; ++part) FenceRegisters(d[part]);
    if (threadIdx.x % 128 < 2) ArriveAt(&s.empty[stages.Before()], threadIdx.x % 2);
    if (work.first > 0) {
      WritePart(args, d, schedule.part() * 2 + rank, group);
    } else if (work.end < args.grid.k_blocks) {
      for (int p = schedule.part() + 1, last = schedule.LastPart(); p <= last; ++p) {
        if (schedule.HasPart(p)) AddPart(args, d, p * 2 + rank);
      }
    }
    if (turn > 0) Await(Turn::kStore, group);
    if (work.first == 0) {
      Store<kEpilogue>(stages.slot >> 31, args, w, d, Row<kShape>(work, rank) + warp % 4 * 16,
                       Column<kEpilogue, kShape>(work, rank));
    }
    Give(Turn::kStore, group);
  }
  if (turn > 0 && turn % 2 == group) {  // the last turns given are taken
    Await(Turn::kMultiply, group);
    Await(Turn::kStore, group);
  }
  if constexpr (kSquares<kEpilogue>) WriteSquares(args);
}

template <Major kA, Major kB, Epilogue kEpilogue, Shape kShape>
__global__ void STRATA_CLUSTER(2) __launch_bounds__(kThreads, 1) GemmKernel(const __grid_constant__ GemmArgs args) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  extern __shared__ uint8_t raw[];
  const Memory s(raw);
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      BarrierInit(&s.full[i], 1);
      BarrierInit(&s.empty[i], 2);  // a warpgroup of either block
    }
    for (int i = 0; i < 4; ++i) BarrierInit(&s.loaded[i], 1);
    FenceBarrierInit();
    PrefetchMap(&args.a);
    PrefetchMap(&args.b);
  }
  ClusterSync();
  const Schedule schedule(args.grid, static_cast<int>(gridDim.x) / 2, static_cast<int>(blockIdx.x) / 2);
  if (threadIdx.x < 128) {
    GiveRegisters<24>();
    if (threadIdx.x == 0) Produce<kA, kB, kEpilogue, kShape>(args, s, schedule);
  } else {
    TakeRegisters<240>();
    Consume<kA, kB, kEpilogue, kShape>(args, s, schedule);
  }
  ClusterSync();  // the other block may still write to this one's memory and barriers
#endif
}

}  // namespace strata::sm90::pingpong
