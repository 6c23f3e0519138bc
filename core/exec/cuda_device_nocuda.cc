// Strata without CUDA: there are no GPUs.
#include "core/exec/cuda_device.h"
#include "core/exec/device_memory.h"

namespace strata {

absl::StatusOr<std::unique_ptr<CudaDevice>> CudaDevice::Open(int) {
  return absl::FailedPreconditionError(
      "this strata was built without CUDA: configure with -DSTRATA_CUDA=ON where the CUDA toolkit 13 is installed");
}
void SetMemory(CudaDevice&, DeviceMemory) {}
int CudaDeviceCount() { return 0; }
std::string CudaStatusLine() { return "built without CUDA"; }

}  // namespace strata
