#pragma once
// The Llama family: Llama (Touvron et al. 2023; grouped-query attention as in Llama 2 70B), as single-device maths on global shapes.
// Pre-norm blocks:  x += wo attention(rope(wq n), rope(wk n), wv n),  n = rms_norm(x);  x += down swiglu(gate n, up n).
// Qwen2 (Yang et al., arXiv:2407.10671) adds biases to q, k and v; Qwen3 (arXiv:2505.09388) an RMS norm on every head of q
// and of k, before they are turned.
// Parameters, all [out, in] and stored unfused: embed.weight [V,E]; blocks.N.{attn_norm.weight [E], wq [H D,E],
// wk, wv [Hk D,E], wo [E,H D], ffn_norm.weight [E], gate, up [F,E], down [E,F]}; head.norm.weight [E]; head.weight [V,E]
// (absent where tied).
// Qwen2 also blocks.N.{wq.bias [H D], wk.bias, wv.bias [Hk D]}, Qwen3 blocks.N.{q_norm.weight, k_norm.weight [D]}.

#include "models/model.h"

namespace strata {

Model LlamaModel();

}  // namespace strata
