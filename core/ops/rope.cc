#include "core/ops/rope.h"

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/graph/op.h"
#include "core/ops/infer.h"

namespace strata {
namespace {

class RopeOp final : public Op {
 public:
  explicit RopeOp(RopeAttributes attributes) : attributes_(attributes) {}
  std::string_view name() const override { return "rope"; }
  std::string attributes() const override {
    const RopeScaling& s = attributes_.scaling;
    return absl::StrFormat(
        "theta=%g%s%s", attributes_.theta,
        s.factor == 1 ? "" : absl::StrFormat(" scaling=%g,%g,%g,%g", s.factor, s.low, s.high, s.original),
        attributes_.direction == RopeDirection::kInverse ? " inverse" : "");
  }
  absl::StatusOr<std::vector<TensorSpec>> Infer(std::span<const TensorSpec> in) const override {
    RETURN_IF_ERROR(ExpectArity(in, 2));
    const Shape& x = in[0].shape;
    if (!IsFloating(in[0].dtype) || x.rank != 4 || x[3] % 2 != 0) {
      return absl::InvalidArgumentError("x must be a floating [B, S, H, D] with even D");
    }
    if (in[1].dtype != DType::kI32 || (in[1].shape != Shape{x[1]} && in[1].shape != Shape{x[0], x[1]})) {
      return absl::InvalidArgumentError("positions must be i32 [S] or [B, S]");
    }
    return std::vector<TensorSpec>{{in[0].dtype, x, {}}};
  }
  absl::StatusOr<std::vector<Value>> Vjp(const VjpArgs& a) const override {
    RopeAttributes back = attributes_;
    back.direction =
        attributes_.direction == RopeDirection::kForward ? RopeDirection::kInverse : RopeDirection::kForward;
    return std::vector<Value>{Rope(a.g, a.grads[0], a.inputs[1], back, a.node.loc), Value{}};
  }
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec> in) const override {
    const Placement R = Replicate(), P = Partial();
    const bool by_row = in[1].shape.rank == 2;
    return {{{Shard(0), by_row ? Shard(0) : R}, {Shard(0)}},
            {{Shard(1), by_row ? Shard(1) : Shard(0)}, {Shard(1)}},
            {{Shard(2), R}, {Shard(2)}},
            {{P, R}, {P}},
            {{R, R}, {R}}};
  }
  const RopeAttributes& rope() const { return attributes_; }

 private:
  RopeAttributes attributes_;
};

}  // namespace

Value Rope(GraphBuilder& g, Value x, Value positions, double theta, RopeDirection direction, SourceLoc loc) {
  return Rope(g, x, positions, RopeAttributes{theta, direction}, loc);
}

Value Rope(GraphBuilder& g, Value x, Value positions, const RopeAttributes& rope, SourceLoc loc) {
  return g.Add(std::make_shared<RopeOp>(rope), {x, positions}, loc)[0];
}

const RopeAttributes& RopeAttributesOf(const Op& op) { return static_cast<const RopeOp&>(op).rope(); }

}  // namespace strata
