#pragma once
// What the ops' Infer functions share: checks of operands, and shapes with one dim changed.

#include <span>

#include "absl/status/status.h"
#include "core/graph/graph.h"

namespace strata {

// InvalidArgument unless there are n operands.
absl::Status ExpectArity(std::span<const TensorSpec> in, size_t n);
// InvalidArgument unless there are n operands of one shape and one floating dtype. Nothing is broadcast.
absl::Status ExpectAlike(std::span<const TensorSpec> in, size_t n);
// InvalidArgument unless 0 <= dim < rank.
absl::Status ExpectDim(const TensorSpec& x, int dim);

Shape WithDim(Shape shape, int dim, int64_t extent);
Shape InsertDim(const Shape& shape, int dim, int64_t extent);  // before `dim`
Shape EraseDim(const Shape& shape, int dim);

}  // namespace strata
