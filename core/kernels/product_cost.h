#pragma once
// What matrix products with work on their results cost, on every back end.

#include <span>
#include <vector>

#include "core/graph/op.h"
#include "core/kernels/cost.h"

namespace strata {

// The multiplications and additions of the op; each operand is read and each result written once.
inline Cost OpCost(const Op& op, std::span<const TensorRef> in, std::span<const TensorRef> out) {
  std::vector<TensorSpec> specs;
  for (const TensorRef& t : in) specs.push_back({t.dtype, t.shape, {}});
  return {op.Flops(specs), StreamingCost(op, in, out).bytes};
}

}  // namespace strata
