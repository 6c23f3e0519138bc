#pragma once
// Rotations of heads on the GPU, for every kernel that has some: a table of angles, then the heads (core/ops/rope.h). f32 and bf16.
// CUDA sources only.

#include <cuda_runtime.h>

#include "absl/status/status.h"
#include "core/ops/rope.h"
#include "core/tensor/tensor.h"

namespace strata {

// Of a table [count, half] of {cosine, sine}. kFragments: as threads hold what tensor cores sum up. With count a multiple of 16 and half one of 8,
// [count / 16, half / 8, 2, 8, 4, 2]: of 16 rows, of 8 columns, the upper and the lower 8 rows; a row's columns are of 4 threads.
enum class RopeTableOrder : uint8_t { kRows, kFragments };

struct RopeTableCall {
  RopeAttributes rope;
  const int32_t* positions = nullptr;
  int64_t count = 0, half = 0;  // of positions; half a head's dim
  float2* table = nullptr;      // RopeTableBytes
  RopeTableOrder order = RopeTableOrder::kRows;
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

// Launch only. Token t has position t mod count. TurnHeads takes a table in rows.
absl::Status MakeRopeTable(const RopeTableCall& call, cudaStream_t stream);
absl::Status TurnHeads(const RopeTableCall& table, const TurnCall& call, cudaStream_t stream);

}  // namespace strata
