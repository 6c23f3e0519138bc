#include "core/kernels/cuda_kernels.h"

namespace strata {

KernelTable CudaKernels(Determinism determinism) {
  KernelTable table;
  AddCudaLinearKernels(table);
  AddCudaAttentionKernels(table, determinism);
  return table;
}

}  // namespace strata
