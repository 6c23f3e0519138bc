#pragma once
// swiglu of packed rows gate | up on the GPU, for whatever op makes them: h = silu(gate) up. f32 and bf16. CUDA sources only.

#include <cuda_runtime.h>

#include "absl/status/status.h"
#include "core/tensor/tensor.h"

namespace strata {

struct SwigluCall {
  DType dtype = DType::kBF16;
  int64_t rows = 0, F = 0;
  const void* gu = nullptr;  // [rows, 2 F]
  void* h = nullptr;         // [rows, F]
};
struct SwigluDxCall {
  DType dtype = DType::kBF16;
  int64_t rows = 0, F = 0;
  const void* gu = nullptr;  // [rows, 2 F]
  const void* dh = nullptr;  // [rows, F], rows dh_pitch elements apart; may be the part of dgu that is up's
  int64_t dh_pitch = 0;
  void* dgu = nullptr;  // [rows, 2 F]; may be gu
};
// Launch only.
absl::Status SwigluForward(const SwigluCall& call, cudaStream_t stream);
absl::Status SwigluBackward(const SwigluDxCall& call, cudaStream_t stream);

}  // namespace strata
