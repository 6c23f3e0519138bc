#include "models/llama.h"

#include <map>

#include "absl/strings/str_format.h"
#include "core/ops/attention.h"
#include "core/ops/elementwise.h"
#include "core/ops/embedding.h"
#include "core/ops/head_loss.h"
#include "core/ops/linear.h"
#include "core/ops/move.h"
#include "core/ops/rms_norm.h"
#include "core/ops/rope.h"

namespace strata {
namespace {

class Llama {
 public:
  Llama(GraphBuilder& g, const LlamaConfig& c, DType dtype) : g_(g), c_(c), dtype_(dtype) {}

  Value Hidden_BSE(Value tokens_BS, Value positions_S) {
    g_.Push("embed");
    Value x = Residual(Embedding(g_, tokens_BS, Param("embed.weight", {c_.vocab, c_.dim})));
    g_.Pop();
    for (int64_t i = 0; i < c_.layers; ++i) {
      g_.Push(absl::StrFormat("blocks.%d", i), static_cast<int>(i));
      x = Block(x, positions_S);
      g_.Pop();
    }
    g_.Push("head");
    x = RmsNorm(g_, x, Param("head.norm.weight", {c_.dim}), c_.norm_eps);
    g_.Pop();
    return x;
  }

  Value HeadWeight_VE() {
    return c_.tied ? Param("embed.weight", {c_.vocab, c_.dim}) : Param("head.weight", {c_.vocab, c_.dim});
  }

  std::map<StateId, Value> reads;  // by state: a tied parameter is one read

 private:
  Value Param(const std::string& name, Shape shape) {
    const StateId id = g_.Declare({name, Role::kParam, {dtype_, shape, {}}});
    const auto [it, fresh] = reads.try_emplace(id);
    if (fresh) it->second = g_.Read(id);
    return it->second;
  }
  Value BlockParam(const char* name, Shape shape) { return Param(g_.scope() + "." + name, shape); }

  // What a placement table may pin.
  Value Residual(Value x) {
    x = Identity(g_, x);
    g_.Name("residual", x);
    return x;
  }

  Value Block(Value x_BSE, Value positions_S) {
    const int64_t e = c_.dim, d = e / c_.heads, kv = c_.kv_heads * d, f = c_.ffn;
    const Value attn_norm = BlockParam("attn_norm.weight", {e});
    const Value wq = BlockParam("wq", {e, e}), wk = BlockParam("wk", {kv, e}), wv = BlockParam("wv", {kv, e});
    const Value wo = BlockParam("wo", {e, e}), ffn_norm = BlockParam("ffn_norm.weight", {e});
    const Value gate = BlockParam("gate", {f, e}), up = BlockParam("up", {f, e}), down = BlockParam("down", {e, f});

    g_.Push("attn");
    const Value n = RmsNorm(g_, x_BSE, attn_norm, c_.norm_eps);
    const auto heads = [&](Value w) { return SplitDim(g_, Linear(g_, n, w), 2, d); };
    const Value q_BSHD = Rope(g_, heads(wq), positions_S, c_.rope_theta);
    const Value k_BSHD = Rope(g_, heads(wk), positions_S, c_.rope_theta);
    const Value o_BSHD = Attention(g_, q_BSHD, k_BSHD, heads(wv), positions_S, positions_S, AttentionMask::kCausal);
    x_BSE = Residual(Add(g_, x_BSE, Linear(g_, MergeDims(g_, o_BSHD, 2), wo)));
    g_.Pop();

    g_.Push("ffn");
    const Value m = RmsNorm(g_, x_BSE, ffn_norm, c_.norm_eps);
    const Value h_BSF = Swiglu(g_, Linear(g_, m, gate), Linear(g_, m, up));
    x_BSE = Residual(Add(g_, x_BSE, Linear(g_, h_BSF, down)));
    g_.Pop();
    return x_BSE;
  }

  GraphBuilder& g_;
  const LlamaConfig& c_;
  const DType dtype_;
};

}  // namespace

LlamaLoss BuildLlamaLoss(GraphBuilder& g, const LlamaConfig& config, int64_t batch, DType dtype, int chunks) {
  const Shape bs{batch, config.seq};
  const DType accumulator = AccumulatorOf(dtype);
  const Value tokens = g.Input("tokens", {DType::kI32, bs, {}}), targets = g.Input("targets", {DType::kI32, bs, {}});
  const Value weights = g.Input("weights", {accumulator, bs, {}});
  const Value positions = g.Input("positions", {DType::kI32, {config.seq}, {}});
  const Value loss_scale = g.Input("loss_scale", {accumulator, {}, {}});
  Llama model(g, config, dtype);
  const Value x_BSE = model.Hidden_BSE(tokens, positions);
  g.Push("head");
  const Value loss = HeadLoss(g, x_BSE, model.HeadWeight_VE(), targets, weights, loss_scale, chunks);
  g.Pop();
  LlamaLoss result{loss, loss_scale, {}, {}};
  for (const auto& [state, read] : model.reads) {
    result.params.push_back(read);
    result.states.push_back(state);
  }
  return result;
}

Value BuildLlamaLogits(GraphBuilder& g, const LlamaConfig& config, int64_t batch, DType dtype) {
  const Value tokens = g.Input("tokens", {DType::kI32, {batch, config.seq}, {}});
  const Value positions = g.Input("positions", {DType::kI32, {config.seq}, {}});
  Llama model(g, config, dtype);
  const Value x_BSE = model.Hidden_BSE(tokens, positions);
  g.Push("head");
  const Value logits = Linear(g, x_BSE, model.HeadWeight_VE());
  g.Pop();
  g.Output("logits", logits);
  return logits;
}

int LossChunks(const LlamaConfig& config) {
  int chunks = 1;
  while (config.seq % (2 * chunks) == 0 && config.seq / (2 * chunks) >= 128) chunks *= 2;
  return chunks;
}

}  // namespace strata
