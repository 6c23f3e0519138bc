#include "core/kernels/cuda_kernels.h"
#include "core/kernels/squares_cuda.h"
#include "core/kernels/sum_parts_cuda.h"

namespace strata {

KernelTable CudaKernels(Determinism determinism) {
  KernelTable table;
  table.set_asynchronous();
  AddCudaLinearKernels(table, determinism);
  AddCudaLinearFusedKernels(table, determinism);
  AddCudaElementwiseKernels(table);
  AddCudaNormKernels(table);
  AddCudaRopeKernels(table);
  AddCudaDocumentKernels(table);
  AddCudaCrossEntropyKernels(table);
  AddCudaSoftmaxNllKernels(table);
  AddCudaOptimizerKernels(table);
  AddCudaEmbeddingKernels(table);
  AddCudaMoveKernels(table);
  AddCudaBiasKernels(table);
  AddCudaDropoutKernels(table);
  AddCudaFlatKernels(table);
  AddCudaQuantizeKernels(table);
  AddCudaSumPartsKernels(table);
  AddCudaSquaresKernels(table);
  AddCudaAttentionKernels(table, determinism);
  return table;
}

}  // namespace strata
