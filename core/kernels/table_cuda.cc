#include "core/kernels/cuda_kernels.h"
#include "core/kernels/sum_parts_cuda.h"

namespace strata {

KernelTable CudaKernels(Determinism determinism) {
  KernelTable table;
  table.set_asynchronous();
  AddCudaLinearKernels(table, determinism);
  // By the dtype of its result, which may be bf16.
  if (const auto acc = table.Find("linear_dw_acc", DType::kF32); acc.ok()) {
    const Kernel kernel = **acc;
    table.Add("linear_dw_acc", DType::kBF16, kernel);
  }
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
  AddCudaAttentionKernels(table, determinism);
  return table;
}

}  // namespace strata
