#include "core/ops/bias.h"

#include "core/base/status.h"
#include "core/graph/op.h"
#include "core/ops/infer.h"

namespace strata {
namespace {

class BiasAddOp final : public Op {
 public:
  std::string_view name() const override { return "bias_add"; }
  absl::StatusOr<std::vector<TensorSpec>> Infer(std::span<const TensorSpec> in) const override {
    RETURN_IF_ERROR(ExpectArity(in, 2));
    const TensorSpec &x = in[0], &bias = in[1];
    if (!IsFloating(x.dtype) || x.shape.rank < 2) return absl::InvalidArgumentError("x must be a floating [..., N]");
    if (bias.dtype != x.dtype || bias.shape != Shape{x.shape.back()}) {
      return absl::InvalidArgumentError("the bias must be [N] of the dtype of x");
    }
    return std::vector<TensorSpec>{{x.dtype, x.shape, {}}};
  }
  absl::StatusOr<std::vector<Value>> Vjp(const VjpArgs& a) const override {
    return std::vector<Value>{a.grads[0], BiasGrad(a.g, a.grads[0], a.node.loc)};
  }
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec> in) const override {
    const int last = in[0].shape.rank - 1;
    std::vector<ShardRule> rules;
    for (int d = 0; d < last; ++d) rules.push_back({{Shard(d), Replicate()}, {Shard(d)}});
    rules.push_back({{Shard(last), Shard(0)}, {Shard(last)}});
    rules.push_back({{Replicate(), Replicate()}, {Replicate()}});
    return rules;
  }
};

class BiasGradOp final : public Op {
 public:
  std::string_view name() const override { return "bias_grad"; }
  absl::StatusOr<std::vector<TensorSpec>> Infer(std::span<const TensorSpec> in) const override {
    RETURN_IF_ERROR(ExpectAlike(in, 1));
    if (in[0].shape.rank < 2) return absl::InvalidArgumentError("dy must be [..., N]");
    return std::vector<TensorSpec>{{AccumulatorOf(in[0].dtype), {in[0].shape.back()}, {}}};
  }
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec> in) const override {
    const int last = in[0].shape.rank - 1;
    std::vector<ShardRule> rules;
    for (int d = 0; d < last; ++d) rules.push_back({{Shard(d)}, {Partial()}});
    rules.push_back({{Shard(last)}, {Shard(0)}});
    rules.push_back({{Partial()}, {Partial()}});
    rules.push_back({{Replicate()}, {Replicate()}});
    return rules;
  }
};

}  // namespace

Value BiasAdd(GraphBuilder& g, Value x, Value bias, SourceLoc loc) {
  return g.Add(std::make_shared<BiasAddOp>(), {x, bias}, loc)[0];
}
Value BiasGrad(GraphBuilder& g, Value dy, SourceLoc loc) { return g.Add(std::make_shared<BiasGradOp>(), {dy}, loc)[0]; }

}  // namespace strata
