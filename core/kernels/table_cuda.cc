#include "core/kernels/cuda_kernels.h"

namespace strata {

KernelTable CudaKernels([[maybe_unused]] Determinism determinism) {
  KernelTable table;
  AddCudaLinearKernels(table);
  AddCudaElementwiseKernels(table);
  AddCudaNormKernels(table);
  AddCudaRopeKernels(table);
  return table;
}

}  // namespace strata
