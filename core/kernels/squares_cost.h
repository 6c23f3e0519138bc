#pragma once
// What total_squares costs, on every back end.

#include "core/kernels/cost.h"
#include "core/ops/squares.h"

namespace strata {

// Of the flat tensors, only ranges are read.
inline Cost TotalSquaresCost(const Op& op, std::span<const TensorRef> in, std::span<const TensorRef>) {
  Cost cost{.bytes = static_cast<double>(in[0].bytes())};
  for (size_t i = 0; i + 1 < in.size(); ++i) {
    for (const FlatRange& r : TotalSquaresRanges(op, i)) {
      cost.bytes += static_cast<double>(r.count * SizeOf(in[1 + i].dtype));
    }
  }
  return cost;
}

}  // namespace strata
