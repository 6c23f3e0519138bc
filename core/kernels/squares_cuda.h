#pragma once
// Sums of squares in parts (core/ops/squares.h) on the GPU. CUDA sources only.

#include <cuda_runtime.h>

#include "absl/status/status.h"
#include "core/exec/device.h"

namespace strata {

void AddCudaSquaresKernels(KernelTable& table);  // square_parts, total_squares

// parts[kSquareParts] of the squares of x[count], f32 or bf16. Launches only.
absl::Status LaunchSquareParts(const void* x, DType dtype, int64_t count, float* parts, cudaStream_t stream);

}  // namespace strata
