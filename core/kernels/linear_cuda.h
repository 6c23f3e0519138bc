#pragma once
// What matrix products on the GPU share, whatever op they belong to. CUDA sources only.

#include <algorithm>
#include <bit>
#include <initializer_list>
#include <span>

#include "absl/status/statusor.h"
#include "core/base/status.h"
#include "core/kernels/gemm_cuda.h"

namespace strata {

// The rows of adjacent matrices [Ni, K], which are one matrix; Internal where they are not adjacent.
inline absl::StatusOr<int64_t> RowsOfPacked(std::span<const TensorRef> w) {
  int64_t rows = 0;
  const std::byte* at = w[0].as<const std::byte>();
  for (const TensorRef& t : w) {
    if (t.as<const std::byte>() != at) return absl::InternalError("packed matrices are not adjacent");
    rows += t.shape[0];
    if (at != nullptr) at += t.bytes();
  }
  return rows;
}

// GemmShape::align of these operands.
inline int32_t AlignmentOf(std::initializer_list<const void*> operands) {
  uintptr_t bits = 256;
  for (const void* p : operands) bits |= reinterpret_cast<uintptr_t>(p);
  return int32_t{1} << std::countr_zero(bits);
}

// The plans of the kernel's GPU, opened at the first use.
inline absl::StatusOr<GemmPlans*> GemmPlansOf(const KernelArgs& a) {
  CudaContext& context = CudaContextOf(a);
  if (context.gemms == nullptr) {
    ASSIGN_OR_RETURN(context.gemms, GemmPlans::Open(context));
  }
  return context.gemms.get();
}

}  // namespace strata
