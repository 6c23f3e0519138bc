#include "models/gpt2.h"

#include <cmath>

#include "absl/strings/str_format.h"
#include "core/ops/elementwise.h"
#include "core/ops/head_loss.h"
#include "core/ops/linear.h"
#include "models/layers.h"
#include "models/layers_sharding.h"

namespace strata {
namespace {

Value Block(GraphBuilder& g, Layers& layers, const std::string& block, Value x_BSE) {
  g.Push("attn");
  const Value a_BSE = layers.SelfAttention(block, layers.Norm(block + ".attn_norm", x_BSE), AttentionMask::kCausal);
  x_BSE = Residual(g, Add(g, x_BSE, layers.Drop(a_BSE)));
  g.Pop();
  g.Push("ffn");
  const Value f_BSE = layers.FeedForward(block, layers.Norm(block + ".ffn_norm", x_BSE), GeluKind::kTanh);
  x_BSE = Residual(g, Add(g, x_BSE, layers.Drop(f_BSE)));
  g.Pop();
  return x_BSE;
}

Value Hidden_BSE(GraphBuilder& g, Layers& layers, const ModelConfig& c) {
  g.Push("embed");
  Value x = Residual(g, layers.Drop(layers.Embed_BSE()));
  g.Pop();
  for (int64_t i = 0; i < c.layers; ++i) {
    const std::string block = absl::StrFormat("blocks.%d", i);
    g.Push(block, static_cast<int>(i));
    x = Block(g, layers, block, x);
    g.Pop();
  }
  g.Push("head");
  x = layers.Norm("head.norm", x);
  g.Pop();
  return x;
}

ModelLoss Loss(GraphBuilder& g, const ModelConfig& c, const LossSpec& spec) {
  const ModelInputs in = LossInputs(g, c, spec);
  Layers layers(g, c, in, spec.dtype, spec.dropout);
  const Value x_BSE = Hidden_BSE(g, layers, c), w_VE = layers.params.OverVocab("embed.weight", c, c.dim);
  g.Push("head");
  const Value loss =
      HeadLoss(g, x_BSE, w_VE, {}, in.targets_BS, in.weights_BS, in.loss_scale, spec.chunks, c.classes());
  g.Pop();
  return layers.params.Loss(loss, in.loss_scale);
}

Value Logits(GraphBuilder& g, const ModelConfig& c, int64_t batch, DType dtype) {
  Layers layers(g, c, LogitInputs(g, c, batch), dtype, 0);
  const Value x_BSE = Hidden_BSE(g, layers, c);
  g.Push("head");
  const Value logits = Linear(g, x_BSE, layers.params.OverVocab("embed.weight", c, c.dim));
  g.Pop();
  g.Output("logits", logits);
  return logits;
}

// Radford et al. 2019, sec. 2.3: what writes the residual stream starts smaller by the root of the number of its layers.
InitSpec Init(const ModelConfig& c, std::string_view parameter) {
  InitSpec init = LayersInit(c, parameter);
  if (EndsWith(parameter, ".wo") || EndsWith(parameter, ".down")) {
    init.std /= std::sqrt(2.0 * static_cast<double>(c.layers));
  }
  return init;
}

ModelSize Size(const ModelConfig& c) {
  const ModelSize block = BlockSize(c);
  const int64_t table = c.vocab * c.dim, positions = c.position_rows() * c.dim, norm = 2 * c.dim;
  return {c.layers * block.parameters + table + positions + norm, c.layers * block.matmul_weights + table};
}

}  // namespace

Model Gpt2Model() {
  return {.loss = Loss, .logits = Logits, .axes = LayersAxes, .pins = LayersPins, .init = Init, .size = Size};
}

}  // namespace strata
