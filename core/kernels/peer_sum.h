#pragma once
// Sums over GPUs that read each other's memory: the arithmetic of collectives between peers. Included by CUDA sources only.

#include <cuda_runtime.h>

#include <span>

#include "absl/status/status.h"
#include "core/mesh/mesh.h"
#include "core/tensor/tensor.h"

namespace strata {

inline constexpr int kMaxPeers = 16;

// out[i] = in[0][i] + in[1][i] + ..., or the largest, in that order, bf16 in float32. `out` may be one of the inputs: element
// i of the inputs is read by the thread that writes element i. At most `blocks` blocks, so that a GPU that computes keeps
// the rest. Errors: InvalidArgument for a dtype without arithmetic (u8, f64) or too many inputs; Internal of the launch.
absl::Status PeerSum(ReduceOp op, DType dtype, std::span<const void* const> in, int64_t count, void* out, int blocks,
                     cudaStream_t stream);

}  // namespace strata
