#include "tests/testing/tiny_llama.h"

#include "absl/strings/str_format.h"
#include "core/base/philox.h"
#include "core/base/status.h"
#include "core/graph/autograd.h"
#include "core/graph/builder.h"
#include "core/ops/attention.h"
#include "core/ops/cross_entropy.h"
#include "core/ops/elementwise.h"
#include "core/ops/embedding.h"
#include "core/ops/head_loss.h"
#include "core/ops/linear.h"
#include "core/ops/move.h"
#include "core/ops/rms_norm.h"
#include "core/ops/rope.h"

namespace strata::testing {
namespace {

constexpr double kEps = 1e-6, kTheta = 10000;

class Model {
 public:
  explicit Model(const TinyLlama& config) : c_(config) {}

  absl::StatusOr<Graph> Build() {
    const DType acc = AccumulatorOf(c_.dtype);
    const Value tokens = g_.Input("tokens", {DType::kI32, {c_.B, c_.S}, {}});
    const Value targets = g_.Input("targets", {DType::kI32, {c_.B, c_.S}, {}});
    const Value weights = g_.Input("weights", {acc, {c_.B, c_.S}, {}});
    positions_ = g_.Input("positions", {DType::kI32, {c_.S}, {}});
    const Value seed = g_.Input("loss_scale", {acc, {}, {}});
    Value x = Embedding(g_, tokens, Param("embed", {c_.V, c_.E}));
    g_.Push("embed");
    x = Boundary("residual", x);
    g_.Pop();
    for (int l = 0; l < c_.layers; ++l) {
      g_.Push(absl::StrFormat("blocks.%d", l), l);
      x = Block(x);
      g_.Pop();
    }
    x = RmsNorm(g_, x, Param("norm", {c_.E}), kEps);
    const Value head = Param("head", {c_.V, c_.E});
    const Value loss = c_.head_chunks > 0 ? HeadLoss(g_, x, head, {}, targets, weights, seed, c_.head_chunks)
                                          : Loss(Linear(g_, x, head), targets, weights);
    const StateId sum = g_.Declare({"loss_sum", Role::kBuffer, {acc, {}, {}}});
    g_.Update(sum, Add(g_, g_.Read(sum), loss));
    g_.Output("loss", loss);
    ASSIGN_OR_RETURN(const Graph forward, std::move(g_).Build());
    ASSIGN_OR_RETURN(const Graph both, Differentiate(forward, loss, seed, values_));
    ASSIGN_OR_RETURN(const Graph plain, DecomposeOps(both, [](const Op& op) { return op.name() == "head_loss"; }));
    return AccumulateGradients(plain, states_);
  }

 private:
  Value Param(const std::string& name, Shape shape) {
    const std::string scope = g_.scope();
    states_.push_back(g_.Declare({scope.empty() ? name : scope + "." + name, Role::kParam, {c_.dtype, shape, {}}}));
    values_.push_back(g_.Read(states_.back()));
    return values_.back();
  }
  Value Boundary(const std::string& name, Value x) {
    const Value y = Identity(g_, x);
    g_.Name(name, y);
    return y;
  }
  Value Heads(Value y, const std::string& name, int64_t heads) {
    return SplitDim(g_, Linear(g_, y, Param(name, {heads * c_.D, c_.E})), 2, c_.D);
  }
  Value Loss(Value z, Value targets, Value weights) {
    g_.Output("logits", z);
    const Value m = VocabMax(g_, z);
    return Nll(g_, m, VocabSumExp(g_, z, m), VocabPick(g_, z, targets), weights);
  }
  Value Block(Value x) {
    g_.Push("attn");
    Value y = RmsNorm(g_, x, Param("norm", {c_.E}), kEps);
    const Value q = Rope(g_, Heads(y, "q", c_.H), positions_, kTheta),
                k = Rope(g_, Heads(y, "k", c_.Hk), positions_, kTheta);
    const Value o = Attention(g_, q, k, Heads(y, "v", c_.Hk), positions_, positions_, AttentionMask::kCausal);
    y = Linear(g_, MergeDims(g_, o, 2), Param("o", {c_.E, c_.H * c_.D}));
    g_.Pop();
    x = Boundary("mid.residual", Add(g_, x, y));
    g_.Push("mlp");
    y = RmsNorm(g_, x, Param("norm", {c_.E}), kEps);
    const Value h = Swiglu(g_, Linear(g_, y, Param("gate", {c_.F, c_.E})), Linear(g_, y, Param("up", {c_.F, c_.E})));
    y = Linear(g_, h, Param("down", {c_.E, c_.F}));
    g_.Pop();
    return Boundary("residual", Add(g_, x, y));
  }

  const TinyLlama c_;
  GraphBuilder g_;
  Value positions_;
  std::vector<StateId> states_;
  std::vector<Value> values_;
};

}  // namespace

absl::StatusOr<Graph> BuildTinyLlama(const TinyLlama& config) { return Model(config).Build(); }

std::map<std::string, Tensor> TinyLlamaBindings(const Graph& graph, const TinyLlama& config) {
  std::map<std::string, Tensor> bindings;
  for (const State& s : graph.states) {
    const uint64_t seed = HashName(s.name);
    const bool weight = s.role == Role::kParam;
    Tensor& t = bindings[s.name] =
        weight ? Tensor::Random(s.spec.dtype, s.spec.shape, seed, s.spec.shape.rank == 2 ? 0.3 : 0.1)
               : Tensor::Zeros(s.spec.dtype, s.spec.shape);
    for (int64_t i = 0; weight && s.spec.shape.rank == 1 && i < t.size(); ++i) t.set(i, 1 + t.at(i));
  }
  const Shape bs = {config.B, config.S};
  bindings["tokens"] = Tensor::RandomInts(bs, 0, config.V, 1);
  bindings["targets"] = Tensor::RandomInts(bs, 0, config.V, 2);
  Tensor& weights = bindings["weights"] = Tensor::Zeros(AccumulatorOf(config.dtype), bs);
  for (int64_t i = 0; i < weights.size(); ++i) weights.set(i, i % 3 == 1 ? 0 : 1);
  Tensor& positions = bindings["positions"] = Tensor::Zeros(DType::kI32, {config.S});
  for (int64_t i = 0; i < config.S; ++i) positions.set(i, static_cast<double>(i));
  bindings["loss_scale"] = Tensor::Of({}, {1.0 / 21}, AccumulatorOf(config.dtype));
  return bindings;
}

std::vector<Pin> TinyLlamaPins(const std::vector<MeshAxis>& mesh, Residual residual, const TinyLlama& config) {
  std::vector<Pin> pins;
  for (const char* name : {"tokens", "targets", "weights", "*.residual"}) {
    pins.insert(pins.end(), {{name, "dp", Shard(0)}, {name, "cp", Shard(1)}});
  }
  pins.push_back({"positions", "cp", Shard(0)});
  if (residual == Residual::kSequenceParallel)
    pins.push_back({"*.residual", "tp", Shard(1)});
  else
    pins.push_back({"*.residual", "tp", Replicate()});
  int64_t outer = 1;
  for (const MeshAxis& axis : mesh) {
    if (axis.name.rfind("tp", 0) != 0) continue;
    outer *= axis.size;
    const Placement kv = config.Hk % outer == 0 ? Shard(0) : Replicate();
    pins.insert(pins.end(), {{"*.attn.k", axis.name, kv}, {"*.attn.v", axis.name, kv}});
  }
  for (const char* rows : {"*.attn.q", "*.mlp.gate", "*.mlp.up", "embed", "head"})
    pins.push_back({rows, "tp", Shard(0)});
  for (const char* columns : {"*.attn.o", "*.mlp.down"}) pins.push_back({columns, "tp", Shard(1)});
  return pins;
}

}  // namespace strata::testing
