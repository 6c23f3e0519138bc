#pragma once
// The CPU back end's kernels by file; CpuKernels() (core/exec/device.h) adds them all. Each is registered for f64, f32, bf16.
// Contract of every kernel: reads sizes and offsets from the TensorRefs only; all tensors are contiguous row-major unless the
// op says otherwise; outputs are written whole (never assumed zero); no allocation and no exception in run(); bf16 computes
// in float32; work is cut into tiles that do not depend on the number of threads.

#include "core/exec/device.h"

namespace strata {

void AddElementwiseKernels(KernelTable& table);
void AddLinearKernels(KernelTable& table);
void AddLinearFusedKernels(KernelTable& table);  // products with element-wise work on their results
void AddEmbeddingKernels(KernelTable& table);
void AddMoveKernels(KernelTable& table);  // slice, concat, cast, reduce, broadcast
void AddNormKernels(KernelTable& table);
void AddLayerNormKernels(KernelTable& table);
void AddBiasKernels(KernelTable& table);
void AddGeluKernels(KernelTable& table);
void AddDropoutKernels(KernelTable& table);
void AddRopeKernels(KernelTable& table);
void AddDocumentKernels(KernelTable& table);  // positions of packed documents
void AddAttentionKernels(KernelTable& table);
void AddCrossEntropyKernels(KernelTable& table);
void AddOptimizerKernels(KernelTable& table);
void AddConvertKernels(KernelTable& table);  // packing and slicing for collectives
void AddFlatKernels(KernelTable& table);     // parts of flat buckets
void AddQuantizeKernels(KernelTable& table);
void AddSumPartsKernels(KernelTable& table);
void AddSquaresKernels(KernelTable& table);  // sums of squares

}  // namespace strata
