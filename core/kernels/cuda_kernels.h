#pragma once
// The GPU back end's kernels by file; CudaKernels() (core/exec/device.h) adds them all, for f32 and bf16 (optimizer ops and
// accumulations, whose first floating operand is f32: once). Contract as of cpu_kernels.h, and: run() only launches on the
// stream of its KernelArgs, makes no other CUDA call that allocates, blocks or synchronises, reads `scalars` on the GPU, and
// returns the launch's error; bf16 computes in float32; sizes are read on the host from the TensorRefs.

#include "core/exec/device.h"

namespace strata {

void AddCudaElementwiseKernels(KernelTable& table);  // add, mul, scale, silu, swiglu (and packed), accumulate, gelu
void AddCudaMoveKernels(
    KernelTable& table);  // slice, pad_slice, concat, cast, reduce_sum, broadcast, swap_blocks, slice_shard
void AddCudaNormKernels(KernelTable& table);  // rms and layer norm: forward, dx, dw, and both at once
void AddCudaBiasKernels(KernelTable& table);
void AddCudaDropoutKernels(KernelTable& table);
void AddCudaEmbeddingKernels(KernelTable& table);
void AddCudaRopeKernels(KernelTable& table);
void AddCudaDocumentKernels(KernelTable& table);  // document_positions
void AddCudaCrossEntropyKernels(KernelTable& table);
void AddCudaSoftmaxNllKernels(KernelTable& table);  // softmax_nll, softmax_nll_grad
void AddCudaOptimizerKernels(KernelTable& table);
void AddCudaFlatKernels(KernelTable& table);  // parts of flat buckets
void AddCudaQuantizeKernels(KernelTable& table);
void AddCudaLinearKernels(KernelTable& table, Determinism determinism);  // cuBLASLt
void AddCudaLinearFusedKernels(KernelTable& table,
                               Determinism determinism);  // products with element-wise work on results
void AddCudaAttentionKernels(KernelTable& table, Determinism determinism);  // cuDNN, and plain CUDA for the rest

}  // namespace strata
