#pragma once
// Rotations of heads on the GPU, for every kernel that has some: a table of angles, then the heads (core/ops/rope.h). f32 and bf16.
// CUDA sources only.

#include <cuda_runtime.h>

#include "absl/status/status.h"
#include "core/ops/rope.h"
#include "core/tensor/tensor.h"

namespace strata {

// A table of rotations has {cosine, sine} of `count` rows and `half` columns. Where it can it lies in tiles of 16 rows of 8 columns, tile
// after tile of the same rows: so lie the results of tensor cores in a warp's registers, a row of a tile in 4 threads. Else row by row.
constexpr bool IsTiled(int64_t count, int64_t half) { return count % 16 == 0 && half % 8 == 0; }
// Where a pair is in the table; 8 columns from a multiple of 8 lie side by side.
constexpr int64_t RopeTableAt(int64_t count, int64_t half, int64_t row, int64_t column) {
  if (!IsTiled(count, half)) return row * half + column;
  return ((row / 16 * (half / 8) + column / 8) * 16 + row % 16) * 8 + column % 8;
}

struct RopeTableCall {
  RopeAttributes rope;
  const int32_t* positions = nullptr;
  int64_t count = 0, half = 0;  // of positions; half a head's dim
  float2* table = nullptr;      // RopeTableBytes
};
constexpr int64_t RopeTableBytes(int64_t count, int64_t head_dim) {
  return (count * head_dim * static_cast<int64_t>(sizeof(float)) + 255) / 256 * 256;
}

struct TurnCall {
  DType dtype = DType::kBF16;
  int64_t tokens = 0, heads = 0, turned = 0;  // of a token's heads, the first `turned` are turned and the others copied
  const void* x = nullptr;                    // [tokens, heads, 2 half]
  void* y = nullptr;                          // the same; may be x
};

// Launch only. Token t has position t mod count.
absl::Status MakeRopeTable(const RopeTableCall& call, cudaStream_t stream);
absl::Status TurnHeads(const RopeTableCall& table, const TurnCall& call, cudaStream_t stream);

}  // namespace strata
