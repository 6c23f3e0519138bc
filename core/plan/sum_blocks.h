#pragma once
// The arithmetic of a reduce-scatter that is an exchange of shards and a sum: parts[a, n, c] -> [a, c], the sum over n in order, in the
// accumulator of the dtype, rounded once. Emitted by lowering only.

#include "core/base/status.h"
#include "core/graph/op.h"

namespace strata {

class SumBlocksOp final : public Op {
 public:
  // A second operand, which is not read: what was sent, where the result may lie. Shards of ranks lie in different places of it, and
  // so the steps of all ranks come in one order.
  static constexpr size_t kSent = 1;

  std::string_view name() const override { return "sum_blocks"; }
  absl::StatusOr<std::vector<TensorSpec>> Infer(std::span<const TensorSpec> in) const override {
    const Shape& s = in[0].shape;
    if (s.rank != 3) return absl::InvalidArgumentError("takes [a, n, c]");
    return std::vector<TensorSpec>{{in[0].dtype, {s[0], s[2]}, {}}};
  }
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec>) const override { return {}; }
};

}  // namespace strata
