#pragma once
// Packing for collectives along an inner dim: [a, b, c] -> [b, a, c]. Emitted by lowering only.

#include "core/graph/op.h"

namespace strata {

class SwapBlocksOp final : public Op {
 public:
  std::string_view name() const override { return "swap_blocks"; }
  absl::StatusOr<std::vector<TensorSpec>> Infer(std::span<const TensorSpec> in) const override {
    TensorSpec out = in[0];
    std::swap(out.shape[0], out.shape[1]);
    return std::vector{out};
  }
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec>) const override { return {}; }
};

}  // namespace strata
