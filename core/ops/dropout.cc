#include "core/ops/dropout.h"

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/graph/op.h"
#include "core/ops/infer.h"

namespace strata {
namespace {

class DropoutOp final : public Op {
 public:
  explicit DropoutOp(DropoutSpec spec) : spec_(spec) {}
  std::string_view name() const override { return "dropout"; }
  std::string attributes() const override {
    std::string text = absl::StrFormat("rate=%g", spec_.rate);
    if (spec_.key.has_value()) text += absl::StrFormat(" key=%016x", *spec_.key);
    return text;
  }
  absl::StatusOr<std::vector<TensorSpec>> Infer(std::span<const TensorSpec> in) const override {
    RETURN_IF_ERROR(ExpectArity(in, 3));
    const TensorSpec& x = in[0];
    if (!IsFloating(x.dtype) || x.shape.rank != 3) return absl::InvalidArgumentError("x must be a floating [B, S, E]");
    for (int i : {1, 2}) {
      if (in[i].dtype == DType::kI32 && in[i].shape == Shape{x.shape[i - 1]}) continue;
      return absl::InvalidArgumentError("samples and positions must be i32 [B] and [S]");
    }
    if (!(spec_.rate >= 0 && spec_.rate < 1)) return absl::InvalidArgumentError("the rate must be in [0, 1)");
    return std::vector<TensorSpec>{{x.dtype, x.shape, {}}};
  }
  absl::StatusOr<std::vector<Value>> Vjp(const VjpArgs& a) const override {
    const uint64_t key = spec_.key.value_or(a.node.key);
    return std::vector<Value>{Dropout(a.g, a.grads[0], a.inputs[1], a.inputs[2], spec_.rate, key, a.node.loc), {}, {}};
  }
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec>) const override {
    const Placement R = Replicate();
    return {{{Shard(0), Shard(0), R}, {Shard(0)}},
            {{Shard(1), R, Shard(0)}, {Shard(1)}},
            {{Shard(2), R, R}, {Shard(2)}},
            {{R, R, R}, {R}}};
  }
  const DropoutSpec& spec() const { return spec_; }

 private:
  DropoutSpec spec_;
};

}  // namespace

Value Dropout(GraphBuilder& g, Value x, Value samples, Value positions, double rate, std::optional<uint64_t> key,
              SourceLoc loc) {
  return g.Add(std::make_shared<DropoutOp>(DropoutSpec{rate, key}), {x, samples, positions}, loc)[0];
}
const DropoutSpec& DropoutSpecOf(const Op& op) { return static_cast<const DropoutOp&>(op).spec(); }

}  // namespace strata
