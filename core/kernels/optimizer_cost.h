#pragma once
// What an optimizer's update moves: live weights, by position its last operand and its last result, are only written.

#include "core/kernels/cost.h"

namespace strata {

// `states` of the optimizer; in: weights, grads, states..., norm, live or none.
template <int kStates>
Cost UpdateCost(const Op& op, std::span<const TensorRef> in, std::span<const TensorRef> out) {
  constexpr size_t kLive = 3 + kStates;
  return StreamingCost(op, in.first(std::min(in.size(), kLive)), out);
}

}  // namespace strata
