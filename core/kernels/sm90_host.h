#pragma once
// The host's side of kernels for Hopper: whether they run, and descriptors of tensors in device memory for bulk copies. CUDA sources
// only.

#include <cuda.h>

#include <cstdint>
#include <initializer_list>

#include "absl/status/statusor.h"

namespace strata::sm90 {

// Whether the kernels for sm_90a are in this build and run on a GPU of this compute capability. In others they are empty.
bool KernelsRun(int compute_major);

// x of bf16, dims from the innermost; strides, in elements, of all dims but the innermost, whose elements are adjacent; copied in
// boxes, whose rows of 64 elements take 128-byte swizzle in shared memory. What lies outside reads as zero and is not written.
// Strides and x are multiples of 16 bytes.
absl::StatusOr<CUtensorMap> BF16Map(const void* x, std::initializer_list<int64_t> dims,
                                    std::initializer_list<int64_t> strides, std::initializer_list<int> box);

}  // namespace strata::sm90
