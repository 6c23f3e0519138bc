#pragma once
// The sum of squares of a step's gradients, where the kernels that write gradients make a part of it (FuseSquares,
// core/plan/fuse.h). Emitted after sharding, so every operand is local storage. Not differentiable.

#include <span>
#include <vector>

#include "core/graph/builder.h"
#include "core/graph/op.h"
#include "core/ops/optimizer.h"

namespace strata {

// Parts of a sum, one for each block of a kernel; those that a kernel has no blocks for are zero.
inline constexpr int64_t kSquareParts = 528;

// [kSquareParts] in AccumulatorOf the tensors' one dtype, which add up to the sum of squares of all their elements. Which
// elements a part is of is the kernel's to choose.
Value SquareParts(GraphBuilder& g, std::span<const Value> tensors, SourceLoc loc = SourceLoc::Here());

struct SquaredRanges {
  Value flat;
  std::vector<FlatRange> ranges;  // ascending, disjoint
};
// The sum of `parts` [n] and of the squares of the ranges, [] in parts' dtype, which is AccumulatorOf the flat tensors'. The order
// of additions is fixed.
Value TotalSquares(GraphBuilder& g, Value parts, std::vector<SquaredRanges> flats, SourceLoc loc = SourceLoc::Here());

// For the kernels: the ranges of input 1 + i.
std::span<const FlatRange> TotalSquaresRanges(const Op& total_squares, size_t i);

}  // namespace strata
