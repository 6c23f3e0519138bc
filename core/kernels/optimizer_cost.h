#pragma once
// What an optimizer's update moves: live weights, by position its last operand and its last result, are only written, but where they are
// halves of the weights.

#include "core/kernels/cost.h"

namespace strata {

// `states` of the optimizer; in: weights, grads, states..., norm, live or none.
template <int kStates>
Cost UpdateCost(const Op& op, std::span<const TensorRef> in, std::span<const TensorRef> out) {
  const size_t live = in[0].dtype == DType::kLow16 ? in.size() : 3 + kStates;
  return StreamingCost(op, in.first(std::min(in.size(), live)), out);
}

}  // namespace strata
