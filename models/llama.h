#pragma once
// Llama (Touvron et al. 2023; grouped-query attention as in Llama 2 70B), as single-device maths on global shapes.
// Pre-norm blocks:  x += wo attention(rope(wq n), rope(wk n), wv n),  n = rms_norm(x);  x += down swiglu(gate n, up n).
// Parameters, all [out, in] and stored unfused: embed.weight [V,E]; blocks.N.{attn_norm.weight [E], wq [H D,E],
// wk, wv [Hk D,E], wo [E,H D], ffn_norm.weight [E], gate, up [F,E], down [E,F]}; head.norm.weight [E]; head.weight [V,E]
// (absent where tied).

#include "models/model.h"

namespace strata {

Model LlamaModel();

}  // namespace strata
