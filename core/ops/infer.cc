#include "core/ops/infer.h"

#include "absl/strings/str_format.h"
#include "core/base/status.h"

namespace strata {

absl::Status ExpectArity(std::span<const TensorSpec> in, size_t n) {
  if (in.size() == n) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrFormat("takes %d operands, not %d", n, in.size()));
}

absl::Status ExpectAlike(std::span<const TensorSpec> in, size_t n) {
  RETURN_IF_ERROR(ExpectArity(in, n));
  if (!IsFloating(in[0].dtype)) return absl::InvalidArgumentError("takes floating operands");
  for (const TensorSpec& s : in) {
    if (s.dtype != in[0].dtype) return absl::InvalidArgumentError("operands differ in dtype");
    if (s.shape != in[0].shape) return absl::InvalidArgumentError("operands differ in shape");
  }
  return absl::OkStatus();
}

absl::Status ExpectDim(const TensorSpec& x, int dim) {
  if (dim >= 0 && dim < x.shape.rank) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrFormat("has no dim %d", dim));
}

Shape WithDim(Shape shape, int dim, int64_t extent) {
  shape[dim] = extent;
  return shape;
}

Shape InsertDim(const Shape& shape, int dim, int64_t extent) {
  Shape out;
  out.rank = shape.rank + 1;
  for (int i = 0; i < out.rank; ++i) out[i] = i < dim ? shape[i] : i == dim ? extent : shape[i - 1];
  return out;
}

Shape EraseDim(const Shape& shape, int dim) {
  Shape out;
  out.rank = shape.rank - 1;
  for (int i = 0; i < out.rank; ++i) out[i] = shape[i < dim ? i : i + 1];
  return out;
}

}  // namespace strata
