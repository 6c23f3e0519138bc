#include "core/ops/layer_norm.h"

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/graph/op.h"
#include "core/ops/bias.h"
#include "core/ops/elementwise.h"
#include "core/ops/infer.h"
#include "core/ops/move.h"
#include "core/ops/rms_norm.h"

namespace strata {
namespace {

// An operand's kind fixes its shape and dtype: 'x' [B, S, E], 'w' [E], 't' [B, S, 1] of the accumulator dtype.
absl::Status CheckOperands(std::string_view kinds, std::span<const TensorSpec> in) {
  RETURN_IF_ERROR(ExpectArity(in, kinds.size()));
  const TensorSpec& x = in[0];
  if (!IsFloating(x.dtype) || x.shape.rank != 3) return absl::InvalidArgumentError("x must be a floating [B, S, E]");
  for (size_t i = 0; i < kinds.size(); ++i) {
    const bool statistic = kinds[i] == 't';
    const Shape shape = statistic ? Shape{x.shape[0], x.shape[1], 1} : kinds[i] == 'w' ? Shape{x.shape[2]} : x.shape;
    const DType dtype = statistic ? AccumulatorOf(x.dtype) : x.dtype;
    if (in[i].shape == shape && in[i].dtype == dtype) continue;
    return absl::InvalidArgumentError(absl::StrFormat("operand %d must be %s%s", i, Name(dtype), ToString(shape)));
  }
  return absl::OkStatus();
}

// Rows for each sharded token dim and for none: 'w' operands are whole.
std::vector<ShardRule> TokenRules(std::string_view in, size_t num_out, Placement out_of_shard) {
  std::vector<ShardRule> rules;
  for (Placement p : {Shard(0), Shard(1), Replicate()}) {
    ShardRule& rule = rules.emplace_back();
    for (char kind : in) rule.in.push_back(kind == 'w' ? Replicate() : p);
    rule.out.assign(num_out, p.is_shard() && out_of_shard.is_partial() ? out_of_shard : p);
  }
  return rules;
}

class LayerNormOp final : public Op {
 public:
  explicit LayerNormOp(double eps) : eps_(eps) {}
  std::string_view name() const override { return "layer_norm"; }
  std::string attributes() const override { return absl::StrFormat("eps=%g", eps_); }
  absl::StatusOr<std::vector<TensorSpec>> Infer(std::span<const TensorSpec> in) const override {
    RETURN_IF_ERROR(CheckOperands("xww", in));
    const Shape& x = in[0].shape;
    const TensorSpec statistic = {AccumulatorOf(in[0].dtype), {x[0], x[1], 1}, {}};
    return std::vector<TensorSpec>{{in[0].dtype, x, {}}, statistic, statistic};
  }
  absl::StatusOr<std::vector<Value>> Vjp(const VjpArgs& a) const override {
    if (a.grads[1].valid() || a.grads[2].valid()) {
      return absl::UnimplementedError("layer_norm: mean and rstd have no gradient");
    }
    const Value dy = a.grads[0], x = a.inputs[0], mean = a.outputs[1], rstd = a.outputs[2];
    const Value dx = LayerNormDx(a.g, dy, x, a.inputs[1], mean, rstd, a.node.loc);
    const LayerNormGrads d = LayerNormDw(a.g, dy, x, mean, rstd, a.node.loc);
    return std::vector<Value>{dx, d.weight_E, d.bias_E};
  }
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec>) const override {
    return TokenRules("xww", 3, Replicate());
  }
  absl::StatusOr<std::vector<Value>> Decompose(GraphBuilder& g, std::span<const Value> in) const override {
    const DType dtype = g.spec(in[0]).dtype, accumulator = AccumulatorOf(dtype);
    const Value x = Cast(g, in[0], accumulator), w = Cast(g, in[1], accumulator), b = Cast(g, in[2], accumulator);
    const double over_E = 1 / static_cast<double>(std::max<int64_t>(1, g.spec(x).shape[2]));
    const Value mean_BS = Scale(g, ReduceSum(g, x, 2), over_E);
    const Value centered = Add(g, x, Scale(g, Broadcast(g, mean_BS, x, 2), -1));
    const Value rstd_BS = Rsqrt(g, Scale(g, ReduceSum(g, Mul(g, centered, centered), 2), over_E), eps_);
    const Value w_SE = Broadcast(g, w, ReduceSum(g, x, 0), 0);  // of the sum, only the shape is used
    const Value xhat = Mul(g, centered, Broadcast(g, rstd_BS, x, 2));
    const Value y = BiasAdd(g, Mul(g, xhat, Broadcast(g, w_SE, x, 0)), b);
    return std::vector<Value>{Cast(g, y, dtype), SplitDim(g, mean_BS, 1, 1), SplitDim(g, rstd_BS, 1, 1)};
  }
  double eps() const { return eps_; }

 private:
  double eps_;
};

class LayerNormDxOp final : public Op {
 public:
  std::string_view name() const override { return "layer_norm_dx"; }
  absl::StatusOr<std::vector<TensorSpec>> Infer(std::span<const TensorSpec> in) const override {
    RETURN_IF_ERROR(CheckOperands("xxwtt", in));
    return std::vector<TensorSpec>{{in[0].dtype, in[0].shape, {}}};
  }
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec>) const override {
    return TokenRules("xxwtt", 1, Replicate());
  }
};

class LayerNormDwOp final : public Op {
 public:
  std::string_view name() const override { return "layer_norm_dw"; }
  absl::StatusOr<std::vector<TensorSpec>> Infer(std::span<const TensorSpec> in) const override {
    RETURN_IF_ERROR(CheckOperands("xxtt", in));
    return std::vector<TensorSpec>(2, {AccumulatorOf(in[0].dtype), {in[0].shape[2]}, {}});
  }
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec>) const override {
    return TokenRules("xxtt", 2, Partial());
  }
};

}  // namespace

Value LayerNorm(GraphBuilder& g, Value x, Value weight, Value bias, double eps, SourceLoc loc) {
  return g.Add(std::make_shared<LayerNormOp>(eps), {x, weight, bias}, loc)[0];
}
Value LayerNormDx(GraphBuilder& g, Value dy, Value x, Value weight, Value mean, Value rstd, SourceLoc loc) {
  return g.Add(std::make_shared<LayerNormDxOp>(), {dy, x, weight, mean, rstd}, loc)[0];
}
LayerNormGrads LayerNormDw(GraphBuilder& g, Value dy, Value x, Value mean, Value rstd, SourceLoc loc) {
  const std::vector<Value> d = g.Add(std::make_shared<LayerNormDwOp>(), {dy, x, mean, rstd}, loc);
  return {d[0], d[1]};
}
double LayerNormEps(const Op& op) { return static_cast<const LayerNormOp&>(op).eps(); }

}  // namespace strata
