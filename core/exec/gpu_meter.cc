#include "core/exec/gpu_meter.h"

#include <cstdlib>

#include "absl/strings/str_format.h"
#include "core/base/dynamic_library.h"
#include "core/base/status.h"

namespace strata {

// NVML's C interface, as documented: results are 0 for success, devices are opaque.
struct GpuMeter::Nvml {
  using Device = void*;
  int (*Init)();
  int (*HandleByBusId)(const char* bus_id, Device* device);
  int (*TotalEnergy)(Device device, unsigned long long* millijoules);
  int (*ClockInfo)(Device device, int clock, unsigned* megahertz);
  int (*PowerLimit)(Device device, unsigned* milliwatts);
  const char* (*ErrorString)(int result);
  Device device = nullptr;

  absl::Status Load() {
    const char* own = std::getenv("STRATA_NVML");
    const std::string name = own != nullptr && *own != 0 ? own : "libnvidia-ml.so.1";
    ASSIGN_OR_RETURN(const DynamicLibrary lib, DynamicLibrary::Open({&name, 1}));
    RETURN_IF_ERROR(lib.Load("nvmlInit_v2", Init));
    RETURN_IF_ERROR(lib.Load("nvmlDeviceGetHandleByPciBusId_v2", HandleByBusId));
    RETURN_IF_ERROR(lib.Load("nvmlDeviceGetTotalEnergyConsumption", TotalEnergy));
    RETURN_IF_ERROR(lib.Load("nvmlDeviceGetClockInfo", ClockInfo));
    RETURN_IF_ERROR(lib.Load("nvmlDeviceGetEnforcedPowerLimit", PowerLimit));
    return lib.Load("nvmlErrorString", ErrorString);
  }
  absl::Status Check(int result, const char* call) const {
    if (result == 0) return absl::OkStatus();
    return absl::FailedPreconditionError(absl::StrFormat("%s: %s", call, ErrorString(result)));
  }
};

GpuMeter::GpuMeter(std::unique_ptr<Nvml> nvml) : nvml_(std::move(nvml)) {}
GpuMeter::~GpuMeter() = default;
GpuMeter::GpuMeter(GpuMeter&&) noexcept = default;
GpuMeter& GpuMeter::operator=(GpuMeter&&) noexcept = default;

absl::StatusOr<GpuMeter> GpuMeter::Open(const std::string& bus_id) {
  auto nvml = std::make_unique<Nvml>();
  RETURN_IF_ERROR(nvml->Load());
  RETURN_IF_ERROR(nvml->Check(nvml->Init(), "nvmlInit"));  // counted; never shut down
  RETURN_IF_ERROR(nvml->Check(nvml->HandleByBusId(bus_id.c_str(), &nvml->device), "nvmlDeviceGetHandleByPciBusId"));
  return GpuMeter(std::move(nvml));
}

absl::StatusOr<double> GpuMeter::Joules() const {
  unsigned long long millijoules = 0;
  RETURN_IF_ERROR(nvml_->Check(nvml_->TotalEnergy(nvml_->device, &millijoules), "nvmlDeviceGetTotalEnergyConsumption"));
  return 1e-3 * static_cast<double>(millijoules);
}

absl::StatusOr<double> GpuMeter::Megahertz() const {
  constexpr int kMultiprocessors = 1;
  unsigned megahertz = 0;
  RETURN_IF_ERROR(
      nvml_->Check(nvml_->ClockInfo(nvml_->device, kMultiprocessors, &megahertz), "nvmlDeviceGetClockInfo"));
  return megahertz;
}

absl::StatusOr<double> GpuMeter::LimitInWatts() const {
  unsigned milliwatts = 0;
  RETURN_IF_ERROR(nvml_->Check(nvml_->PowerLimit(nvml_->device, &milliwatts), "nvmlDeviceGetEnforcedPowerLimit"));
  return 1e-3 * milliwatts;
}

}  // namespace strata
