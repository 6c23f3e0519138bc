#include "core/ops/vocab_mask.h"

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/graph/op.h"
#include "core/ops/infer.h"

namespace strata {
namespace {

class VocabMaskOp final : public Op {
 public:
  explicit VocabMaskOp(const VocabMaskAttributes& attributes) : attributes_(attributes) {}
  std::string_view name() const override { return "vocab_mask"; }
  std::string attributes() const override {
    return absl::StrFormat("classes=%d%s", attributes_.classes, attributes_.to_zero ? " to_zero" : "");
  }
  absl::StatusOr<std::vector<TensorSpec>> Infer(std::span<const TensorSpec> in) const override {
    RETURN_IF_ERROR(ExpectArity(in, 1));
    const Shape& z = in[0].shape;
    if (!IsFloating(in[0].dtype) || z.rank != 3)
      return absl::InvalidArgumentError("logits must be a floating [B, S, V]");
    if (attributes_.classes < 1 || attributes_.classes > z[2]) {
      return absl::InvalidArgumentError(absl::StrFormat("%d classes of %d logits", attributes_.classes, z[2]));
    }
    return std::vector<TensorSpec>{{in[0].dtype, z, {}}};
  }
  absl::StatusOr<std::vector<Value>> Vjp(const VjpArgs& a) const override {
    const VocabMaskAttributes zeroes{attributes_.classes, true};
    return a.g.Add(std::make_shared<VocabMaskOp>(zeroes), {a.grads[0]}, a.node.loc);
  }
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec>) const override { return ElementwiseRules(3, 1, 1); }
  bool MayOverwrite(int input) const override { return input == 0; }
  const VocabMaskAttributes& values() const { return attributes_; }

 private:
  const VocabMaskAttributes attributes_;
};

}  // namespace

Value VocabMask(GraphBuilder& g, Value z, int64_t classes, SourceLoc loc) {
  return g.Add(std::make_shared<VocabMaskOp>(VocabMaskAttributes{classes}), {z}, loc)[0];
}

const VocabMaskAttributes& VocabMaskAttributesOf(const Op& op) { return static_cast<const VocabMaskOp&>(op).values(); }

}  // namespace strata
