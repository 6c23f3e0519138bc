#pragma once
// Where the memory of a GPU comes from, if not from cudaMalloc.

#include <functional>

#include "absl/status/statusor.h"
#include "core/exec/cuda_device.h"

namespace strata {

struct DeviceMemory {  // empty: cudaMalloc
  std::function<absl::StatusOr<void*>(int64_t bytes)> allocate;
  std::function<void(void*)> free;
};

// Of what `device`, as CudaDevice::Open() made it, reserves from now on.
void SetMemory(CudaDevice& device, DeviceMemory memory);

}  // namespace strata
