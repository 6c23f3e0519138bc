#pragma once
// Attention of our own for Hopper (sm_90a): bf16, head dims 64 and 128, causal or full, grouped heads, any length; no documents.
// Tiles come by bulk copies that one warp issues, products are wgmma of whole warpgroups, the softmax of one warpgroup runs beside
// the products of another. All sums are float32; probabilities and their gradients are rounded to bf16 for the products.
// Source: Shah et al., "FlashAttention-3" (2024), algorithms 2 and 3. CUDA sources only.

#include "core/exec/device.h"
#include "core/kernels/attention_cuda.h"

namespace strata {

// Of the kernels: what was timed with those of another generation is not believed.
inline constexpr int kSm90AttentionGeneration = 1;

// Whether the kernels, if they were built for sm_90a, take the call on a GPU of this compute capability. Addresses that are known
// must be multiples of 16.
bool Sm90AttentionTakes(const AttentionCall& call, int compute_major);

// Bytes of workspace, aligned to 256.
int64_t Sm90AttentionForwardWorkspace(const AttentionCall& call);
int64_t Sm90AttentionBackwardWorkspace(const AttentionCall& call, Determinism determinism);

// Launch only. FailedPrecondition where the driver has no tensor maps. The forward pass gives equal bits every time; the backward
// pass does with kBitExact, else it sums dq in any order. Where it
// can it turns dq and dk as the call says, before their only rounding.
bool Sm90AttentionTurns(const AttentionCall& call);
absl::Status Sm90AttentionForward(const AttentionCall& call, void* workspace, cudaStream_t stream);
absl::Status Sm90AttentionBackward(const AttentionCall& call, Determinism determinism, void* workspace,
                                   cudaStream_t stream);

}  // namespace strata
