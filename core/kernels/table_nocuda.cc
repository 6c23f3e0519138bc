#include "core/exec/device.h"

namespace strata {

KernelTable CudaKernels(Determinism) { return {}; }

}  // namespace strata
