#pragma once
// The gradient of a bias on the GPU, for whatever op makes it: sums over rows, added to an accumulator. CUDA sources only.

#include <cuda_runtime.h>

#include "absl/status/status.h"
#include "core/tensor/tensor.h"

namespace strata {

struct BiasSums {
  DType dtype = DType::kF32;  // of acc, f32 or bf16
  void* acc = nullptr;        // [columns]
  int64_t columns = 0;
  bool adds = false;  // else acc is overwritten
};
int64_t BiasSumsWorkspace(int64_t columns);  // bytes
// The sums of dy[rows, columns], f32 or bf16. Launches only, as the next.
absl::Status SumRowsInto(const BiasSums& sums, const void* dy, DType dtype, int64_t rows, void* workspace,
                         cudaStream_t stream);
// Of partial sums [rows, columns], in order.
absl::Status AddPartialSums(const BiasSums& sums, const float* partial, int64_t rows, cudaStream_t stream);

}  // namespace strata
