#include "core/ops/rms_norm.h"

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/graph/op.h"
#include "core/ops/elementwise.h"
#include "core/ops/infer.h"
#include "core/ops/move.h"

namespace strata {
namespace {

Shape RstdShape(const Shape& x) { return WithDim(x, x.rank - 1, 1); }

// x[..., E] with weight[E] and rstd[..., 1], of fitting dtypes; a null operand is not checked.
absl::Status CheckOperands(const TensorSpec& x, const TensorSpec* dy, const TensorSpec* weight,
                           const TensorSpec* rstd) {
  if (!IsFloating(x.dtype) || x.shape.rank < 2) return absl::InvalidArgumentError("x must be a floating [..., E]");
  if (dy != nullptr && (dy->dtype != x.dtype || dy->shape != x.shape)) {
    return absl::InvalidArgumentError("dy must be like x");
  }
  if (weight != nullptr && (weight->dtype != x.dtype || weight->shape != Shape{x.shape.back()})) {
    return absl::InvalidArgumentError("weight must be [E] of the dtype of x");
  }
  if (rstd != nullptr && (rstd->dtype != AccumulatorOf(x.dtype) || rstd->shape != RstdShape(x.shape))) {
    return absl::InvalidArgumentError("rstd must be [..., 1] of the accumulator dtype of x");
  }
  return absl::OkStatus();
}

// Where x's rows may lie: any leading dim sharded, or whole.
std::vector<Placement> RowPlacements(const TensorSpec& x) {
  std::vector<Placement> placements;
  for (int d = 0; d < x.shape.rank - 1; ++d) placements.push_back(Shard(d));
  placements.push_back(Replicate());
  return placements;
}

// w[E] repeated along the leading dims of x[..., E].
Value LikeRows(GraphBuilder& g, Value w, Value x) {
  if (g.spec(x).shape.rank <= 1) return w;
  return Broadcast(g, LikeRows(g, w, ReduceSum(g, x, 0)), x, 0);  // of the sum, only the shape is used
}

class EpsOp : public Op {
 public:
  explicit EpsOp(double eps) : eps_(eps) {}
  std::string attributes() const override { return absl::StrFormat("eps=%g", eps_); }
  double eps() const { return eps_; }

 private:
  double eps_;
};

class RsqrtOp final : public EpsOp {
 public:
  using EpsOp::EpsOp;
  std::string_view name() const override { return "rsqrt"; }
  absl::StatusOr<std::vector<TensorSpec>> Infer(std::span<const TensorSpec> in) const override {
    RETURN_IF_ERROR(ExpectAlike(in, 1));
    return std::vector<TensorSpec>{{in[0].dtype, in[0].shape, {}}};
  }
  absl::StatusOr<std::vector<Value>> Vjp(const VjpArgs& a) const override {  // -y^3 / 2
    const Value y = a.outputs[0], cube = Mul(a.g, Mul(a.g, y, y), y);
    return std::vector<Value>{Scale(a.g, Mul(a.g, a.grads[0], cube), -0.5)};
  }
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec> in) const override {
    return ElementwiseRules(in[0].shape.rank, 1, 1);
  }
};

class RmsNormOp final : public EpsOp {
 public:
  using EpsOp::EpsOp;
  std::string_view name() const override { return "rms_norm"; }
  absl::StatusOr<std::vector<TensorSpec>> Infer(std::span<const TensorSpec> in) const override {
    RETURN_IF_ERROR(ExpectArity(in, 2));
    RETURN_IF_ERROR(CheckOperands(in[0], nullptr, &in[1], nullptr));
    const Shape& x = in[0].shape;
    return std::vector<TensorSpec>{{in[0].dtype, x, {}}, {AccumulatorOf(in[0].dtype), RstdShape(x), {}}};
  }
  absl::StatusOr<std::vector<Value>> Vjp(const VjpArgs& a) const override {
    if (a.grads[1].valid()) return absl::UnimplementedError("rms_norm: rstd has no gradient");
    const SourceLoc loc = a.node.loc;
    return std::vector<Value>{RmsNormDx(a.g, a.grads[0], a.inputs[0], a.inputs[1], a.outputs[1], loc),
                              RmsNormDw(a.g, a.grads[0], a.inputs[0], a.outputs[1], loc)};
  }
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec> in) const override {
    const Placement R = Replicate();
    std::vector<ShardRule> rules;
    for (Placement p : RowPlacements(in[0])) rules.push_back({{p, R}, {p, p}});
    return rules;
  }
  absl::StatusOr<std::vector<Value>> Decompose(GraphBuilder& g, std::span<const Value> in) const override {
    const DType dtype = g.spec(in[0]).dtype, accumulator = AccumulatorOf(dtype);
    const Value x = Cast(g, in[0], accumulator), w = Cast(g, in[1], accumulator);
    const int last = g.spec(x).shape.rank - 1;
    const double over_E = 1 / static_cast<double>(std::max<int64_t>(1, g.spec(x).shape.dim[last]));
    const Value rstd = Rsqrt(g, Scale(g, ReduceSum(g, Mul(g, x, x), last), over_E), eps());
    const Value y = Mul(g, Mul(g, x, Broadcast(g, rstd, x, last)), LikeRows(g, w, x));
    return std::vector<Value>{Cast(g, y, dtype), SplitDim(g, rstd, last - 1, 1)};
  }
};

class RmsNormDxOp final : public Op {
 public:
  std::string_view name() const override { return "rms_norm_dx"; }
  absl::StatusOr<std::vector<TensorSpec>> Infer(std::span<const TensorSpec> in) const override {
    RETURN_IF_ERROR(ExpectArity(in, 4));
    RETURN_IF_ERROR(CheckOperands(in[1], &in[0], &in[2], &in[3]));
    return std::vector<TensorSpec>{{in[1].dtype, in[1].shape, {}}};
  }
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec> in) const override {
    const Placement R = Replicate();
    std::vector<ShardRule> rules;
    for (Placement p : RowPlacements(in[1])) rules.push_back({{p, p, R, p}, {p}});
    return rules;
  }
};

class RmsNormDwOp final : public Op {
 public:
  std::string_view name() const override { return "rms_norm_dw"; }
  absl::StatusOr<std::vector<TensorSpec>> Infer(std::span<const TensorSpec> in) const override {
    RETURN_IF_ERROR(ExpectArity(in, 3));
    RETURN_IF_ERROR(CheckOperands(in[1], &in[0], nullptr, &in[2]));
    return std::vector<TensorSpec>{{AccumulatorOf(in[1].dtype), {in[1].shape.back()}, {}}};
  }
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec> in) const override {
    std::vector<ShardRule> rules;
    for (Placement p : RowPlacements(in[1])) {
      rules.push_back({{p, p, p}, {p.is_shard() ? Partial() : Replicate()}});
    }
    return rules;
  }
};

}  // namespace

Value RmsNorm(GraphBuilder& g, Value x, Value weight, double eps, SourceLoc loc) {
  return g.Add(std::make_shared<RmsNormOp>(eps), {x, weight}, loc)[0];
}
Value RmsNormDx(GraphBuilder& g, Value dy, Value x, Value weight, Value rstd, SourceLoc loc) {
  return g.Add(std::make_shared<RmsNormDxOp>(), {dy, x, weight, rstd}, loc)[0];
}
Value RmsNormDw(GraphBuilder& g, Value dy, Value x, Value rstd, SourceLoc loc) {
  return g.Add(std::make_shared<RmsNormDwOp>(), {dy, x, rstd}, loc)[0];
}
Value Rsqrt(GraphBuilder& g, Value a, double eps, SourceLoc loc) {
  return g.Add(std::make_shared<RsqrtOp>(eps), {a}, loc)[0];
}
double EpsOf(const Op& op) { return static_cast<const EpsOp&>(op).eps(); }

}  // namespace strata
