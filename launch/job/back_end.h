#pragma once
// Where a job computes: the CPU or GPUs. Chosen once from the config; everything after it takes the kernels and devices as values.

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "core/exec/device.h"
#include "launch/config/job_config.h"

namespace strata {

struct BackEnd {
  DeviceKind kind = DeviceKind::kCpu;  // never kAuto
  KernelTable kernels;

  bool cuda() const { return kind == DeviceKind::kCuda; }
};

// run.device: "auto" is a GPU where one can be opened and the job runs on it, else the CPU. Needs no GPU for "cuda": plans are made
// anywhere. Errors: InvalidArgument for what a GPU does not do.
absl::StatusOr<BackEnd> BackEndOf(const JobConfig& config);

// The device of the rank with this number on its machine. Errors: as CudaDevice::Open, with what to set.
absl::StatusOr<std::unique_ptr<Device>> OpenDevice(const BackEnd& back_end, int local_rank);

}  // namespace strata
