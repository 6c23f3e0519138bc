#pragma once
// The arithmetic of a reduce-scatter that is an exchange of shards and a sum: parts[a, n, c], sent[a n c] -> [a, c], the sum over n in order, in
// the accumulator of the dtype, rounded once. A member's own part was not copied: it is read of what the member sent. Emitted
// by lowering only.

#include "core/base/status.h"
#include "core/graph/op.h"

namespace strata {

class SumBlocksOp final : public Op {
 public:
  explicit SumBlocksOp(int64_t me) : me_(me) {}

  // The operand with what was sent, where the result may lie. That it is whole also gives the steps of all ranks, whose shards lie in
  // different places of it, one order.
  static constexpr size_t kSent = 1;
  int64_t me() const { return me_; }  // the part that is the member's own

  std::string_view name() const override { return "sum_blocks"; }
  absl::StatusOr<std::vector<TensorSpec>> Infer(std::span<const TensorSpec> in) const override {
    const Shape& s = in[0].shape;
    if (in.size() != 2 || s.rank != 3 || in[kSent].shape.elements() != s.elements() || me_ >= s[1]) {
      return absl::InvalidArgumentError("takes [a, n, c], and as many elements that were sent");
    }
    return std::vector<TensorSpec>{{in[0].dtype, {s[0], s[2]}, {}}};
  }
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec>) const override { return {}; }

 private:
  const int64_t me_;
};

}  // namespace strata
