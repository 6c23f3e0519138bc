#include "models/layers.h"

#include "core/ops/attention.h"
#include "core/ops/bias.h"
#include "core/ops/dropout.h"
#include "core/ops/elementwise.h"
#include "core/ops/embedding.h"
#include "core/ops/layer_norm.h"
#include "core/ops/linear.h"
#include "core/ops/move.h"

namespace strata {

Value Layers::Embed_BSE() {
  const Value x_BSE = Embedding(g_, in_.tokens_BS, params.OverVocab("embed.weight", c_, c_.dim));
  const Value p = Embedding(g_, in_.text_positions, params("embed.positions", {c_.position_rows(), c_.dim}));
  const bool by_row = in_.document_starts_BS.valid();
  return Add(g_, x_BSE, by_row ? p : Broadcast(g_, p, x_BSE, 0));
}

Value Layers::Affine(const std::string& name, Value x, int64_t out) {
  const Shape& shape = g_.spec(x).shape;  // empty where the graph has failed already
  const Value weight = params(name, {out, shape.rank > 0 ? shape.back() : 1});
  return BiasAdd(g_, Linear(g_, x, weight), params(name + ".bias", {out}));
}

Value Layers::Norm(const std::string& name, Value x_BSE) {
  return LayerNorm(g_, x_BSE, params(name + ".weight", {c_.dim}), params(name + ".bias", {c_.dim}), c_.norm_eps);
}

Value Layers::Drop(Value x_BSE) {
  return dropout_ > 0 ? Dropout(g_, x_BSE, in_.samples_B, in_.positions_S, dropout_) : x_BSE;
}

Value Layers::SelfAttention(const std::string& block, Value x_BSE, AttentionMask mask) {
  // Weights before biases: each kind lies together in the bucket.
  for (const char* name : {".wq", ".wk", ".wv"}) params(block + name, {c_.dim, c_.dim});
  const auto heads = [&](const char* name) {
    return SplitDim(g_, Affine(block + name, x_BSE, c_.dim), 2, c_.head_dim());
  };
  const Value q_BSHD = heads(".wq"), k_BSHD = heads(".wk"), v_BSHD = heads(".wv");
  const Value o_BSHD =
      Attention(g_, q_BSHD, k_BSHD, v_BSHD, in_.positions_S, in_.positions_S, mask, in_.document_starts_BS);
  return Affine(block + ".wo", MergeDims(g_, o_BSHD, 2), c_.dim);
}

Value Layers::FeedForward(const std::string& block, Value x_BSE, GeluKind gelu) {
  return Affine(block + ".down", Gelu(g_, Affine(block + ".up", x_BSE, c_.ffn), gelu), c_.dim);
}

ModelSize BlockSize(const ModelConfig& c) {
  const int64_t matmul = 4 * c.dim * c.dim + 2 * c.dim * c.ffn;
  const int64_t biases = 5 * c.dim + c.ffn, norms = 4 * c.dim;
  return {matmul + biases + norms, matmul};
}

InitSpec LayersInit(const ModelConfig& config, std::string_view parameter) {
  if (EndsWith(parameter, "norm.weight")) return {1, 0};
  return {0, EndsWith(parameter, ".bias") ? 0 : config.init_std};
}

}  // namespace strata
