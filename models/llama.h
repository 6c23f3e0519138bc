#pragma once
// Llama (Touvron et al. 2023; grouped-query attention as in Llama 2 70B), as single-device maths on global shapes.
// Pre-norm blocks:  x += wo attention(rope(wq n), rope(wk n), wv n),  n = rms_norm(x);  x += down swiglu(gate n, up n).
// Parameters, all [out, in] and stored unfused: embed.weight [V,E]; blocks.N.{attn_norm.weight [E], wq [H D,E],
// wk, wv [Hk D,E], wo [E,H D], ffn_norm.weight [E], gate, up [F,E], down [E,F]}; head.norm.weight [E]; head.weight [V,E]
// (absent where tied).

#include <vector>

#include "core/graph/builder.h"
#include "models/llama_config.h"

namespace strata {

// Graph inputs: tokens, targets i32 [B,S]; weights [B,S] (loss mask), positions i32 [S], loss_scale [] (cotangent of loss).
struct LlamaLoss {
  Value loss;  // [] sum over tokens of weight * negative log-likelihood, nats
  Value loss_scale;
  std::vector<Value> params;  // reads, in order of declaration; one a state
  std::vector<StateId> states;
};

// batch: sequences of one micro-batch over all data-parallel ranks. chunks: pieces of the sequence whose logits exist at a
// time. dtype: of parameters and activations.
LlamaLoss BuildLlamaLoss(GraphBuilder& g, const LlamaConfig& config, int64_t batch, DType dtype, int chunks);

// Graph inputs tokens, positions; output "logits" [B,S,V].
Value BuildLlamaLogits(GraphBuilder& g, const LlamaConfig& config, int64_t batch, DType dtype);

// The largest power of two that divides seq and keeps a chunk at 128 positions or more.
int LossChunks(const LlamaConfig& config);

}  // namespace strata
