#include "models/bert.h"

#include "absl/strings/str_format.h"
#include "core/ops/bias.h"
#include "core/ops/elementwise.h"
#include "core/ops/head_loss.h"
#include "core/ops/move.h"
#include "models/layers.h"
#include "models/layers_sharding.h"

namespace strata {
namespace {

constexpr int64_t kSegments = 2;

Value Embed(GraphBuilder& g, Layers& layers, const ModelConfig& c) {
  const Value segments = layers.params("embed.segments", {kSegments, c.dim});
  const Value segment_E = MergeDims(g, Slice(g, segments, 0, 0, kSegments), 0);
  return layers.Drop(layers.Norm("embed.norm", BiasAdd(g, layers.Embed_BSE(), segment_E)));
}

Value Block(GraphBuilder& g, Layers& layers, const std::string& block, Value x_BSE) {
  g.Push("attn");
  const Value a_BSE = layers.SelfAttention(block, x_BSE, AttentionMask::kFull);
  x_BSE = Residual(g, layers.Norm(block + ".attn_norm", Add(g, x_BSE, layers.Drop(a_BSE))));
  g.Pop();
  g.Push("ffn");
  const Value f_BSE = layers.FeedForward(block, x_BSE, GeluKind::kErf);
  x_BSE = Residual(g, layers.Norm(block + ".ffn_norm", Add(g, x_BSE, layers.Drop(f_BSE))));
  g.Pop();
  return x_BSE;
}

ModelLoss Loss(GraphBuilder& g, const ModelConfig& c, const LossSpec& spec) {
  const ModelInputs in = LossInputs(g, c, spec);
  Layers layers(g, c, in, spec.dtype, spec.dropout);
  g.Push("embed");
  Value x = Residual(g, Embed(g, layers, c));
  g.Pop();
  for (int64_t i = 0; i < c.layers; ++i) {
    const std::string block = absl::StrFormat("blocks.%d", i);
    g.Push(block, static_cast<int>(i));
    x = Block(g, layers, block, x);
    g.Pop();
  }
  g.Push("head");
  const Value h_BSE = layers.Norm("head.norm", Gelu(g, layers.Affine("head.dense", x, c.dim), GeluKind::kErf));
  const Value loss =
      HeadLoss(g, h_BSE, layers.params.OverVocab("embed.weight", c, c.dim), layers.params.OverVocab("head.bias", c, 0),
               in.targets_BS, in.weights_BS, in.loss_scale, spec.chunks, c.classes());
  g.Pop();
  return layers.params.Loss(loss, in.loss_scale);
}

ModelSize Size(const ModelConfig& c) {
  const ModelSize block = BlockSize(c);
  const int64_t table = c.vocab * c.dim, dense = c.dim * c.dim;
  const int64_t embed = (c.position_rows() + kSegments) * c.dim + 2 * c.dim, head = dense + c.dim + 2 * c.dim + c.vocab;
  return {c.layers * block.parameters + table + embed + head, c.layers * block.matmul_weights + table + dense};
}

}  // namespace

Model BertModel() {
  return {.objective = Objective::kMaskedToken,
          .attention = AttentionMask::kFull,
          .loss = Loss,
          .axes = LayersAxes,
          .pins = LayersPins,
          .init = LayersInit,
          .size = Size};
}

}  // namespace strata
