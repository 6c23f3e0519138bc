#include "launch/job/back_end.h"

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/exec/cpu_device.h"
#include "core/exec/cuda_device.h"

namespace strata {
namespace {

// Why the job cannot run on GPUs, or empty.
std::string NotOnGpu(const JobConfig& c) {
  if (c.precision.compute == DType::kF64) return "precision.compute = \"float64\" runs on the CPU only";
  return "";
}

}  // namespace

absl::StatusOr<BackEnd> BackEndOf(const JobConfig& c) {
  const std::string why_not = NotOnGpu(c);
  const bool cuda = c.run.device == DeviceKind::kCuda ||
                    (c.run.device == DeviceKind::kAuto && why_not.empty() && CudaDeviceCount() >= c.parallel.ranks());
  if (!cuda) return BackEnd{DeviceKind::kCpu, CpuKernels()};
  if (!why_not.empty()) return absl::InvalidArgumentError("run.device = \"cuda\": " + why_not);
  BackEnd back_end{DeviceKind::kCuda, CudaKernels(c.run.deterministic ? Determinism::kBitExact : Determinism::kFast)};
  if (!back_end.kernels.Has("linear")) {
    return absl::InvalidArgumentError("run.device = \"cuda\": " + CudaStatusLine());
  }
  return back_end;
}

absl::StatusOr<std::unique_ptr<Device>> OpenDevice(const BackEnd& back_end, int local_rank) {
  if (!back_end.cuda()) return std::make_unique<CpuDevice>();
  absl::StatusOr<std::unique_ptr<CudaDevice>> device = CudaDevice::Open(local_rank);
  if (!device.ok()) return Annotate(device.status(), "run.device = \"cuda\"");
  return *std::move(device);
}

}  // namespace strata
