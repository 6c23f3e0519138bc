#pragma once
// A tile of core/kernels/gemm_sm90.cuh on its way out: what kernels are given, what a warpgroup's sums become in registers, and chunks of it that go through a
// warp's own shared memory and the copy engine.

#include "core/kernels/cuda_util.cuh"
#include "core/kernels/gemm_sm90_schedule.h"
#include "core/kernels/sm90.cuh"

#if defined(__CUDA_ARCH__) && !defined(__CUDA_ARCH_FEAT_SM90_ALL)
#pragma nv_diag_suppress 177  // on other GPUs kernels are empty, and what they are made of is not used
#endif

namespace strata::sm90 {

inline constexpr int kWarps = 8;                 // of a block, that multiply
inline constexpr int kChunkBytes = 16 * 64 * 2;  // of a warp's staging: 16 rows of 64 bf16

enum class Epilogue {
  kRound,           // D = bf16(A B + C + bias)
  kFloat32,         // D (+)= A B
  kSwiglu,          // B^T is gate's rows, then up's: D = bf16(A gate | A up), E = silu(D's gate) D's up
  kSwigluDx,        // H = bf16(A B); D = the gradient of swiglu by gate | up, from H, gate and up
  kRope64,          // D = bf16(A B + bias), of which heads of 64 columns are turned (core/ops/rope.h)
  kRope128,         // the same of 128
  kGelu,            // D = bf16(A B + bias); E = gelu(D), in the tanh form
  kGeluDx,          // H = bf16(A B); D = H gelu'(pre), and column sums of D
  kFloat32Squares,  // D = A B, and the sum of D's squares
  kRoundSquares,    // D = bf16(A B), the same
};
template <Epilogue kEpilogue>
inline constexpr bool kFloats = kEpilogue == Epilogue::kFloat32 || kEpilogue == Epilogue::kFloat32Squares;
template <Epilogue kEpilogue>
inline constexpr bool kSquares = kEpilogue == Epilogue::kFloat32Squares || kEpilogue == Epilogue::kRoundSquares;

struct GemmArgs {
  CUtensorMap a, b, d;
  CUtensorMap d_up, e;   // kSwiglu, kSwigluDx: d and d_up are D's halves, [m, n] each; kGelu: e
  CUtensorMap gate, up;  // kSwigluDx
  CUtensorMap pre;       // kGeluDx
  CUtensorMap c_map;     // of c, for the ping-pong form
  // kGeluDx: each warp of the grid adds to its own row of [warps, n]; or null. With squares: [kSquareParts], one of each block.
  float* sums;
  const CudaBF16 *c, *bias;  // or null
  float* d32;                // of floats
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

// A warp's staging: two chunks, and a barrier for loads into each.
struct WarpMemory {
  uint8_t* staging;
  uint64_t* loaded;
};

// One special function each, which are what steps of a store wait for; errors are below a hundredth of bf16's.
__device__ __forceinline__ float Tanh(float x) {
  float y;
  asm("tanh.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float Sigmoid(float x) { return 0.5f + 0.5f * Tanh(0.5f * x); }

}  // namespace strata::sm90
