#include "models/llama.h"

#include "absl/strings/str_format.h"
#include "core/ops/bias.h"
#include "core/ops/elementwise.h"
#include "core/ops/embedding.h"
#include "core/ops/head_loss.h"
#include "core/ops/linear.h"
#include "core/ops/move.h"
#include "core/ops/rms_norm.h"
#include "core/ops/rope.h"
#include "models/llama_init.h"
#include "models/llama_sharding.h"
#include "models/parts.h"

namespace strata {
namespace {

RopeAttributes RopeOf(const ModelConfig& c) {
  RopeAttributes rope{.theta = c.rope_theta};
  if (c.rope_scaling == RopeScalingKind::kLlama3) {
    rope.scaling = {c.rope_factor, c.rope_low, c.rope_high, static_cast<double>(c.rope_original)};
  }
  return rope;
}

class Llama {
 public:
  Llama(GraphBuilder& g, const ModelConfig& c, const ModelInputs& in, DType dtype)
      : params(g, dtype), g_(g), c_(c), in_(in) {}

  Value Hidden_BSE() {
    g_.Push("embed");
    Value x = Residual(g_, Embedding(g_, in_.tokens_BS, params.OverVocab("embed.weight", c_, c_.dim)));
    g_.Pop();
    for (int64_t i = 0; i < c_.layers; ++i) {
      g_.Push(absl::StrFormat("blocks.%d", i), static_cast<int>(i));
      x = Block(x);
      g_.Pop();
    }
    g_.Push("head");
    x = RmsNorm(g_, x, params("head.norm.weight", {c_.dim}), c_.norm_eps);
    g_.Pop();
    return x;
  }

  Value HeadWeight_VE() { return params.OverVocab(c_.tied ? "embed.weight" : "head.weight", c_, c_.dim); }

  Params params;

 private:
  Value BlockParam(const char* name, Shape shape) { return params(g_.scope() + "." + name, shape); }

  Value Block(Value x_BSE) {
    const int64_t e = c_.dim, d = c_.head_dim(), q = c_.heads * d, kv = c_.kv_heads * d, f = c_.ffn;
    const Value attn_norm = BlockParam("attn_norm.weight", {e});
    const Value wq = BlockParam("wq", {q, e}), wk = BlockParam("wk", {kv, e}), wv = BlockParam("wv", {kv, e});
    Value bq, bk, bv, q_norm, k_norm;  // after the weights: each kind lies together in the bucket
    if (c_.traits().qkv_bias) {
      bq = BlockParam("wq.bias", {q}), bk = BlockParam("wk.bias", {kv}), bv = BlockParam("wv.bias", {kv});
    }
    if (c_.traits().qk_norm) q_norm = BlockParam("q_norm.weight", {d}), k_norm = BlockParam("k_norm.weight", {d});
    const Value wo = BlockParam("wo", {e, q}), ffn_norm = BlockParam("ffn_norm.weight", {e});
    const Value gate = BlockParam("gate", {f, e}), up = BlockParam("up", {f, e}), down = BlockParam("down", {e, f});

    g_.Push("attn");
    const Value n = RmsNorm(g_, x_BSE, attn_norm, c_.norm_eps);
    const auto heads = [&](Value w, Value bias) {
      const Value y = Linear(g_, n, w);
      return SplitDim(g_, bias.valid() ? BiasAdd(g_, y, bias) : y, 2, d);
    };
    const auto turned = [&](Value x_BSHD, Value norm) {
      if (norm.valid()) x_BSHD = RmsNorm(g_, x_BSHD, norm, c_.norm_eps);
      return Rope(g_, x_BSHD, in_.text_positions, RopeOf(c_));
    };
    const Value q_BSHD = turned(heads(wq, bq), q_norm), k_BSHD = turned(heads(wk, bk), k_norm);
    const Value o_BSHD = Attention(g_, q_BSHD, k_BSHD, heads(wv, bv), in_.positions_S, in_.positions_S,
                                   AttentionMask::kCausal, in_.document_starts_BS);
    x_BSE = Residual(g_, Add(g_, x_BSE, Linear(g_, MergeDims(g_, o_BSHD, 2), wo)));
    g_.Pop();

    g_.Push("ffn");
    const Value m = RmsNorm(g_, x_BSE, ffn_norm, c_.norm_eps);
    const Value h_BSF = Swiglu(g_, Linear(g_, m, gate), Linear(g_, m, up));
    x_BSE = Residual(g_, Add(g_, x_BSE, Linear(g_, h_BSF, down)));
    g_.Pop();
    return x_BSE;
  }

  GraphBuilder& g_;
  const ModelConfig& c_;
  const ModelInputs in_;
};

ModelLoss Loss(GraphBuilder& g, const ModelConfig& config, const LossSpec& spec) {
  const ModelInputs in = LossInputs(g, config, spec);
  Llama model(g, config, in, spec.dtype);
  const Value x_BSE = model.Hidden_BSE();
  g.Push("head");
  const Value loss = HeadLoss(g, x_BSE, model.HeadWeight_VE(), {}, in.targets_BS, in.weights_BS, in.loss_scale,
                              spec.chunks, config.classes());
  g.Pop();
  return model.params.Loss(loss, in.loss_scale);
}

Value Logits(GraphBuilder& g, const ModelConfig& config, int64_t batch, DType dtype) {
  Llama model(g, config, LogitInputs(g, config, batch), dtype);
  const Value x_BSE = model.Hidden_BSE();
  g.Push("head");
  const Value logits = Linear(g, x_BSE, model.HeadWeight_VE());
  g.Pop();
  g.Output("logits", logits);
  return logits;
}

ModelSize Size(const ModelConfig& c) {
  const int64_t d = c.head_dim(), qkv = (c.heads + 2 * c.kv_heads) * d, attention = c.dim * (qkv + c.heads * d);
  const int64_t table = c.vocab * c.dim, head_norms = c.traits().qk_norm ? 2 * d : 0;
  const int64_t norms = c.layers * (2 * c.dim + head_norms) + c.dim, biases = c.traits().qkv_bias ? c.layers * qkv : 0;
  const int64_t matmul = c.layers * (attention + 3 * c.dim * c.ffn) + table;  // gate, up, down; head
  return {matmul + norms + biases + (c.tied ? 0 : table), matmul};
}

}  // namespace

Model LlamaModel() {
  return {.loss = Loss, .logits = Logits, .axes = LlamaAxes, .pins = LlamaPins, .init = LlamaInit, .size = Size};
}

}  // namespace strata
