#include "core/kernels/cuda_kernels.h"

namespace strata {

KernelTable CudaKernels([[maybe_unused]] Determinism determinism) {
  KernelTable table;
  AddCudaLinearKernels(table);
  AddCudaElementwiseKernels(table);
  AddCudaNormKernels(table);
  AddCudaRopeKernels(table);
  AddCudaCrossEntropyKernels(table);
  AddCudaSoftmaxNllKernels(table);
  AddCudaOptimizerKernels(table);
  AddCudaEmbeddingKernels(table);
  AddCudaMoveKernels(table);
  AddCudaBiasKernels(table);
  AddCudaDropoutKernels(table);
  return table;
}

}  // namespace strata
