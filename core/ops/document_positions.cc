#include "core/ops/document_positions.h"

#include "core/base/status.h"
#include "core/graph/op.h"
#include "core/ops/infer.h"

namespace strata {
namespace {

class DocumentPositionsOp final : public Op {
 public:
  std::string_view name() const override { return "document_positions"; }
  absl::StatusOr<std::vector<TensorSpec>> Infer(std::span<const TensorSpec> in) const override {
    RETURN_IF_ERROR(ExpectArity(in, 2));
    const TensorSpec &positions = in[0], &starts = in[1];
    if (starts.dtype != DType::kI32 || starts.shape.rank != 2) {
      return absl::InvalidArgumentError("starts must be i32 [B, S]");
    }
    if (positions.dtype != DType::kI32 || positions.shape != Shape{starts.shape[1]}) {
      return absl::InvalidArgumentError("positions must be i32 [S]");
    }
    return std::vector<TensorSpec>{{DType::kI32, starts.shape, {}}};
  }
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec>) const override {
    const Placement R = Replicate();
    return {{{R, Shard(0)}, {Shard(0)}}, {{Shard(0), Shard(1)}, {Shard(1)}}, {{R, R}, {R}}};
  }
};

}  // namespace

Value DocumentPositions(GraphBuilder& g, Value positions, Value starts, SourceLoc loc) {
  return g.Add(std::make_shared<DocumentPositionsOp>(), {positions, starts}, loc)[0];
}

}  // namespace strata
