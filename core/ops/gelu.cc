#include "core/ops/gelu.h"

#include "core/base/status.h"
#include "core/graph/op.h"
#include "core/ops/infer.h"

namespace strata {
namespace {

class GeluBase : public Op {
 public:
  GeluBase(GeluKind kind, int num_in) : kind_(kind), num_in_(num_in) {}
  std::string attributes() const override { return kind_ == GeluKind::kErf ? "erf" : "tanh"; }
  absl::StatusOr<std::vector<TensorSpec>> Infer(std::span<const TensorSpec> in) const override {
    RETURN_IF_ERROR(ExpectAlike(in, num_in_));
    return std::vector<TensorSpec>{{in[0].dtype, in[0].shape, {}}};
  }
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec> in) const override {
    return ElementwiseRules(in[0].shape.rank, num_in_, 1);
  }
  GeluKind kind() const { return kind_; }

 private:
  GeluKind kind_;
  int num_in_;
};

class GeluOp final : public GeluBase {
 public:
  explicit GeluOp(GeluKind kind) : GeluBase(kind, 1) {}
  std::string_view name() const override { return "gelu"; }
  absl::StatusOr<std::vector<Value>> Vjp(const VjpArgs& a) const override {
    return std::vector<Value>{GeluDx(a.g, a.grads[0], a.inputs[0], kind(), a.node.loc)};
  }
};

class GeluDxOp final : public GeluBase {
 public:
  explicit GeluDxOp(GeluKind kind) : GeluBase(kind, 2) {}
  std::string_view name() const override { return "gelu_dx"; }
};

}  // namespace

Value Gelu(GraphBuilder& g, Value x, GeluKind kind, SourceLoc loc) {
  return g.Add(std::make_shared<GeluOp>(kind), {x}, loc)[0];
}
Value GeluDx(GraphBuilder& g, Value dy, Value x, GeluKind kind, SourceLoc loc) {
  return g.Add(std::make_shared<GeluDxOp>(kind), {dy, x}, loc)[0];
}
GeluKind GeluKindOf(const Op& op) { return static_cast<const GeluBase&>(op).kind(); }

}  // namespace strata
