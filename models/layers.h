#pragma once
// The layers that GPT-2 and BERT are made of. Biases everywhere, learned positions, layer norm, GELU, dropout.
// Parameters of layer "x": x [out,in] and x.bias [out] of an affine map; x.weight and x.bias [E] of a norm. In block N:
// blocks.N.{wq, wk, wv, wo, attn_norm, up, down, ffn_norm}.

#include <string>

#include "core/ops/gelu.h"
#include "models/parts.h"

namespace strata {

class Layers {
 public:
  Layers(GraphBuilder& g, const ModelConfig& config, const ModelInputs& in, DType dtype, double dropout)
      : params(g, dtype), g_(g), c_(config), in_(in), dropout_(dropout) {}

  Value Embed_BSE();  // embed.weight [V,E] by token + embed.positions [positions,E]
  Value Affine(const std::string& name, Value x, int64_t out);
  Value Norm(const std::string& name, Value x_BSE);
  Value Drop(Value x_BSE);  // at every call a mask of its own; x itself where the rate is 0
  // What a block's two residual branches compute, before dropout. `block` is "blocks.N".
  Value SelfAttention(const std::string& block, Value x_BSE, AttentionMask mask);
  Value FeedForward(const std::string& block, Value x_BSE, GeluKind gelu);

  Params params;

 private:
  GraphBuilder& g_;
  const ModelConfig& c_;
  const ModelInputs in_;
  const double dropout_;
};

// The parameters and matmul weights of one block.
ModelSize BlockSize(const ModelConfig& config);

// Ones for norm weights, zeros for biases, else normal(0, init_std).
InitSpec LayersInit(const ModelConfig& config, std::string_view parameter);

}  // namespace strata
