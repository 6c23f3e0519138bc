#include "core/ops/sum_parts.h"

#include "core/base/status.h"
#include "core/graph/op.h"
#include "core/ops/infer.h"

namespace strata {
namespace {

class SumPartsOp final : public Op {
 public:
  std::string_view name() const override { return "sum_parts"; }
  absl::StatusOr<std::vector<TensorSpec>> Infer(std::span<const TensorSpec> in) const override {
    RETURN_IF_ERROR(ExpectArity(in, 1));
    if (in[0].shape.rank != 2 || !IsFloating(in[0].dtype))
      return absl::InvalidArgumentError("takes rows of a flat tensor");
    return std::vector<TensorSpec>{{in[0].dtype == DType::kF64 ? DType::kF64 : DType::kF32, {in[0].shape[1]}, {}}};
  }
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec>) const override { return {}; }
};

}  // namespace

Value SumParts(GraphBuilder& g, Value rows, SourceLoc loc) {
  return g.Add(std::make_shared<SumPartsOp>(), {rows}, loc)[0];
}

}  // namespace strata
