#pragma once
// Rotations of heads on the GPU, for every kernel that has some: a table of angles, then the heads (core/ops/rope.h). f32 and bf16.
// CUDA sources only.

#include <cuda_runtime.h>

#include "absl/status/status.h"
#include "core/ops/rope.h"
#include "core/tensor/tensor.h"

namespace strata {

struct RopeTableCall {
  RopeAttributes rope;
  const int32_t* positions = nullptr;
  int64_t count = 0, half = 0;  // of positions; half a head's dim
  float2* table = nullptr;      // [count, half] of {cosine, sine}, RopeTableBytes
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
