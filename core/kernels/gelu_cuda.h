#pragma once
// gelu of dense tensors on the GPU, for whatever op makes them (core/ops/gelu.h). f32 and bf16. CUDA sources only.

#include <cuda_runtime.h>

#include "absl/status/status.h"
#include "core/ops/gelu.h"
#include "core/tensor/tensor.h"

namespace strata {

struct GeluCall {
  DType dtype = DType::kBF16;
  GeluKind kind = GeluKind::kTanh;
  int64_t count = 0;
  const void* x = nullptr;
  const void* dy = nullptr;  // null: forward, y = gelu(x); else y = dy gelu'(x)
  void* y = nullptr;         // may be x or dy
};
absl::Status RunGelu(const GeluCall& call, cudaStream_t stream);  // launches only

}  // namespace strata
