#pragma once
// One call of attention on the GPU, whatever op it comes from, and the plain CUDA kernels that take every shape of it:
// f32 and bf16, head dims up to 256, positions in any order, documents; deterministic. They are for what cuDNN
// (core/kernels/attention_cudnn.h) does not take. bf16 with head dims that are multiples of 8 up to 128 is multiplied on tensor
// cores (core/kernels/attention_mma.cuh), all else in float32 arithmetic. CUDA sources only.

#include <cuda_runtime.h>

#include "absl/status/status.h"
#include "core/kernels/rope_cuda.h"
#include "core/ops/attention.h"
#include "core/tensor/tensor.h"

namespace strata {

inline constexpr int64_t kMaxAttentionHeadDim = 256;

// q[b, s, hq, d], k and v[b, t, hk, d] with rows `q_row` and `kv_row` elements apart, their gradients likewise; o, its gradient
// [b, s, hq, d] and lse[b, s, hq] are dense. Query head i reads kv head (first_q + i) / group - first_k.
struct AttentionCall {
  DType dtype = DType::kF32;
  AttentionMask mask = AttentionMask::kCausal;
  int64_t b = 0, s = 0, t = 0, hq = 0, hk = 0, d = 0;
  int64_t group = 1, first_q = 0, first_k = 0;
  int64_t q_row = 0, kv_row = 0;
  bool by_index =
      false;  // which keys are seen follows from indices alone: positions rise together, or the mask is full
  const void *q = nullptr, *k = nullptr, *v = nullptr, *d_o = nullptr;
  void *o = nullptr, *dq = nullptr, *dk = nullptr, *dv = nullptr;
  float* lse = nullptr;
  float* row_sum = nullptr;                          // workspace of the backward pass: rowsum(do * o)[b, s, hq]
  const int32_t *pos_q = nullptr, *pos_k = nullptr;  // [s], [t]
  const int32_t* starts = nullptr;  // [b, s]: the first position that a query sees; null: all before it
  bool documents = false;           // there are starts; known before their address is
  RopeTableCall turn{};             // count > 0: heads of dq and dk are turned back (core/ops/rope.h)
};

// Launch only; writes o and lse.
absl::Status PlainAttentionForward(const AttentionCall& call, cudaStream_t stream);
// first[b, s]: the index of the first key that a query of these starts sees, where positions rise: the positions' lower bound.
absl::Status FirstKeys(const AttentionCall& call, int32_t* first, cudaStream_t stream);
// positions[s] = 0, 1, ...; starts[b, s] of documents of `length` tokens.
absl::Status FillDocuments(const AttentionCall& call, int64_t length, cudaStream_t stream);
// Writes dq, dk, dv; needs row_sum.
absl::Status PlainAttentionBackward(const AttentionCall& call, cudaStream_t stream);

}  // namespace strata
