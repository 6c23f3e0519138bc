#pragma once
// Boxes: the axis-aligned parts of tensors that ranks save and load, in elements of the model's (global) tensors.
// A box's bytes are row-major and contiguous. All arithmetic on untrusted numbers is checked. Pure functions.

#include <cstdint>
#include <optional>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "core/tensor/tensor.h"

namespace strata {

inline constexpr int64_t kMaxTensorElements = int64_t{1} << 56;  // times 8 bytes it fits an int64_t

// A part of a tensor. `global` is the whole tensor's shape; a scalar has rank 0 and one element.
struct TensorBox {
  std::string name;
  DType dtype = DType::kF32;
  Shape global, offset, size;
};

// The product of the dims; none where a dim is < 1 or the product exceeds kMaxTensorElements.
std::optional<int64_t> CheckedElements(const Shape& shape);

Shape OriginOf(const Shape& shape);  // index 0 in every dim

// InvalidArgument unless the box is not empty and lies inside the tensor.
absl::Status CheckBox(const Shape& global, const Shape& offset, const Shape& size);

bool BoxesOverlap(const Shape& offset_a, const Shape& size_a, const Shape& offset_b, const Shape& size_b);

// Calls fn(byte offset in `from`, byte offset in `to`, bytes) for each contiguous run of elements that both boxes hold, as
// long as it can be and in rising order. Stops at fn's first error and returns it.
using RunFn = absl::FunctionRef<absl::Status(int64_t, int64_t, int64_t)>;
absl::Status ForEachRun(const Shape& from_offset, const Shape& from_size, const Shape& to_offset, const Shape& to_size,
                        int64_t element_bytes, RunFn fn);

// The boxes whose elements are elements [first, first + count) of a tensor of shape `size`, row-major: in that order, each
// box in one run, at most 2 rank - 1 of them. The range must lie in the tensor.
using BoxFn = absl::FunctionRef<void(const Shape& offset, const Shape& size)>;
void ForEachBoxOfRange(const Shape& size, int64_t first, int64_t count, BoxFn fn);

std::string BoxName(const Shape& offset, const Shape& size);  // "[0:4, 8:16]"

}  // namespace strata
