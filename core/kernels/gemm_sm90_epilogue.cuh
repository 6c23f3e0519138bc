#pragma once
// What becomes of a tile of core/kernels/gemm_sm90.cuh: sums in registers, rounded and in 64 registers of each thread, are stored chunk by
// chunk while the next tile's products run. SwiGLU and GELU are computed of the rounded values on the way, and heads are turned.

#include "core/kernels/gemm_sm90_gelu.cuh"
#include "core/kernels/gemm_sm90_rope.cuh"
#include "core/kernels/gemm_sm90_squares.cuh"
#include "core/kernels/gemm_sm90_swiglu.cuh"

namespace strata::sm90 {

// What is done with a tile beside the next one's products, at most a step in a block of k: one is in flight then, and two warps of a
// scheduler have about 1000 instructions until it ends. `zero` is 0, which the compiler does not know: what
// depends on the tile alone it would compute before that loop, for all steps, and registers are short.
template <Epilogue kEpilogue>
inline constexpr int kStoreSteps = 0;
template <>
inline constexpr int kStoreSteps<Epilogue::kRound> = 4;
template <>
inline constexpr int kStoreSteps<Epilogue::kRoundSquares> = 4;
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
    if constexpr (kSquares<kEpilogue>) {
      AddSquares<16>([&](int i) { return Unpack(tile.packed[kStep * 16 + i] ^ zero); });
    }
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

// 64 rows of sums, d[4 j + 2 h + {0, 1}] as Wgmma gives them; row, column: of the warp's first element.
template <Epilogue kEpilogue, int kSums>
__device__ __forceinline__ void StoreFloats(const GemmArgs& args, const float (&d)[kSums], int row, int column) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int r = row + lane / 4 + 8 * h;
    if (r >= args.m) continue;
    float* to = args.d32 + static_cast<int64_t>(r) * args.n;
#pragma unroll
    for (int j = 0; j < kSums / 4; ++j) {
      const int c = column + 8 * j + lane % 4 * 2;
      if (c >= args.n) continue;
      const float x = d[4 * j + 2 * h], y = d[4 * j + 2 * h + 1];
      if (!kSquares<kEpilogue> && args.accumulate) {  // no other block adds here: the sum's order is fixed
        asm volatile("red.global.add.v2.f32 [%0], {%1, %2};" ::"l"(to + c), "f"(x), "f"(y) : "memory");
      } else {
        *reinterpret_cast<float2*>(to + c) = make_float2(x, y);
      }
    }
  }
}

}  // namespace strata::sm90
