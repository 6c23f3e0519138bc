#include "core/ops/linear.h"

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/ops/infer.h"

namespace strata {
namespace {

using Specs = absl::StatusOr<std::vector<TensorSpec>>;
using Values = absl::StatusOr<std::vector<Value>>;

absl::Status ExpectOperands(std::span<const TensorSpec> in) {
  RETURN_IF_ERROR(ExpectArity(in, 2));
  if (!IsFloating(in[0].dtype) || in[0].dtype != in[1].dtype) {
    return absl::InvalidArgumentError("takes operands of one floating dtype");
  }
  if (in[0].shape.rank < 2) return absl::InvalidArgumentError("takes rows of at least one leading dim");
  return absl::OkStatus();
}

// x[..., contracted] against dim `dim` of W; the result's last dim is W's other one.
Specs InferProduct(std::span<const TensorSpec> in, int dim) {
  RETURN_IF_ERROR(ExpectOperands(in));
  const Shape &x = in[0].shape, &w = in[1].shape;
  if (w.rank != 2) return absl::InvalidArgumentError("takes a weight of two dims");
  if (x.back() != w[dim]) {
    return absl::InvalidArgumentError(absl::StrFormat("rows of %d do not fit a weight of %d", x.back(), w[dim]));
  }
  return std::vector<TensorSpec>{{in[0].dtype, WithDim(x, x.rank - 1, w[1 - dim]), {}}};
}

// Rows of a product whose contraction is over dim `dim` of W: shared by linear and its dx.
std::vector<ShardRule> ProductRules(int rank, int dim) {
  const int last = rank - 1;
  std::vector<ShardRule> rules;
  for (int d = 0; d < last; ++d) rules.push_back({{Shard(d), Replicate()}, {Shard(d)}});
  rules.push_back({{Replicate(), Shard(1 - dim)}, {Shard(last)}});
  rules.push_back({{Shard(last), Shard(dim)}, {Partial()}});
  rules.push_back({{Partial(), Replicate()}, {Partial()}});
  rules.push_back({{Replicate(), Replicate()}, {Replicate()}});
  return rules;
}

double ProductFlops(std::span<const TensorSpec> in, int dim) {
  return 2.0 * static_cast<double>(in[0].shape.elements()) * static_cast<double>(in[1].shape[1 - dim]);
}

class LinearOp final : public Op {
 public:
  std::string_view name() const override { return "linear"; }
  Specs Infer(std::span<const TensorSpec> in) const override { return InferProduct(in, 1); }
  Values Vjp(const VjpArgs& a) const override {
    return std::vector<Value>{LinearDx(a.g, a.grads[0], a.inputs[1], a.node.loc),
                              LinearDw(a.g, a.grads[0], a.inputs[0], a.node.loc)};
  }
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec> in) const override {
    return ProductRules(in[0].shape.rank, 1);
  }
  double Flops(std::span<const TensorSpec> in) const override { return ProductFlops(in, 1); }
};

class LinearDxOp final : public Op {
 public:
  std::string_view name() const override { return "linear_dx"; }
  Specs Infer(std::span<const TensorSpec> in) const override { return InferProduct(in, 0); }
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec> in) const override {
    return ProductRules(in[0].shape.rank, 0);
  }
  double Flops(std::span<const TensorSpec> in) const override { return ProductFlops(in, 0); }
};

class LinearDwOp final : public Op {
 public:
  enum class Result : uint8_t { kAccumulator, kRounded };
  explicit LinearDwOp(Result result) : result_(result) {}
  std::string_view name() const override { return "linear_dw"; }
  std::string attributes() const override { return result_ == Result::kRounded ? "rounded" : ""; }
  Specs Infer(std::span<const TensorSpec> in) const override {
    RETURN_IF_ERROR(ExpectOperands(in));
    const Shape &dy = in[0].shape, &x = in[1].shape;
    if (dy.rank != x.rank || WithDim(dy, dy.rank - 1, x.back()) != x) {
      return absl::InvalidArgumentError("operands differ in their leading dims");
    }
    const DType dtype = result_ == Result::kRounded ? in[0].dtype : AccumulatorOf(in[0].dtype);
    return std::vector<TensorSpec>{{dtype, {dy.back(), x.back()}, {}}};
  }
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec> in) const override {
    const int last = in[0].shape.rank - 1;
    std::vector<ShardRule> rules;
    for (int d = 0; d < last; ++d) rules.push_back({{Shard(d), Shard(d)}, {Partial()}});
    rules.push_back({{Shard(last), Replicate()}, {Shard(0)}});
    rules.push_back({{Replicate(), Shard(last)}, {Shard(1)}});
    rules.push_back({{Partial(), Replicate()}, {Partial()}});
    rules.push_back({{Replicate(), Partial()}, {Partial()}});
    rules.push_back({{Replicate(), Replicate()}, {Replicate()}});
    return rules;
  }
  double Flops(std::span<const TensorSpec> in) const override {
    return 2.0 * static_cast<double>(in[0].shape.elements()) * static_cast<double>(in[1].shape.back());
  }

 private:
  const Result result_;
};

}  // namespace

Value Linear(GraphBuilder& g, Value x, Value weight, SourceLoc loc) {
  return g.Add(std::make_shared<LinearOp>(), {x, weight}, loc)[0];
}
Value LinearDx(GraphBuilder& g, Value dy, Value weight, SourceLoc loc) {
  return g.Add(std::make_shared<LinearDxOp>(), {dy, weight}, loc)[0];
}
Value LinearDw(GraphBuilder& g, Value dy, Value x, SourceLoc loc) {
  return g.Add(std::make_shared<LinearDwOp>(LinearDwOp::Result::kAccumulator), {dy, x}, loc)[0];
}
std::shared_ptr<const Op> RoundedLinearDw() { return std::make_shared<LinearDwOp>(LinearDwOp::Result::kRounded); }

}  // namespace strata
