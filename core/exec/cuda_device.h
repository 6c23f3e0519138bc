#pragma once
// A GPU as a Device: an arena of cudaMalloc memory, pinned host memory, streams and events. Where Strata is built without
// CUDA there are no GPUs: cuda_device_nocuda.cc.

#include <memory>
#include <string>

#include "core/exec/device.h"

namespace strata {

struct CudaContext;

class CudaDevice : public Device {
 public:
  // The index-th GPU that the driver shows, current on this thread from now on.
  // Errors: FailedPrecondition for no driver, a driver older than the CUDA runtime, or an architecture that the kernels were
  // not built for; NotFound for an index that is too high. Each says what was found and what is needed.
  static absl::StatusOr<std::unique_ptr<CudaDevice>> Open(int index);

  virtual std::string description() const = 0;  // "NVIDIA H200, 132 SMs, 139.7 GiB, CUDA 13.0, cuDNN 9.19.0"
  virtual std::string bus_id() const = 0;       // "0000:1B:00.0"
  virtual int64_t total_bytes() const = 0;
  virtual int64_t used_bytes() const = 0;  // of all programs on it, by the driver
  // Which of several implementations computes what, a line each, for people; as far as kernels have chosen.
  virtual std::string kernel_choices() const = 0;
  virtual CudaContext& context() = 0;  // for kernels: core/exec/cuda_context.h
};

// GPUs that can be opened; 0 where there is no driver or Strata was built without CUDA. Never an error.
int CudaDeviceCount();
// Why CudaDeviceCount() is 0, or the device of index 0: "built without CUDA", "no NVIDIA driver is loaded".
std::string CudaStatusLine();

}  // namespace strata
