#pragma once
// sum_parts and sum_blocks on the GPU; contract as of cuda_kernels.h.

#include "core/exec/device.h"

namespace strata {

void AddCudaSumPartsKernels(KernelTable& table);

}  // namespace strata
