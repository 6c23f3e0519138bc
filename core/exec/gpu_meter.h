#pragma once
// What a GPU draws and how fast it is clocked, by NVML (libnvidia-ml.so.1, or $STRATA_NVML), which is opened at run time. Under load a
// GPU lowers its clock to keep to its power limit, so figures of speed need them beside.

#include <memory>
#include <string>

#include "absl/status/statusor.h"

namespace strata {

class GpuMeter {
 public:
  // Of the GPU with this PCI bus id: "0000:1B:00.0". Errors: FailedPrecondition where there is no NVML, or it does not know the GPU.
  static absl::StatusOr<GpuMeter> Open(const std::string& bus_id);
  ~GpuMeter();
  GpuMeter(GpuMeter&&) noexcept;
  GpuMeter& operator=(GpuMeter&&) noexcept;

  absl::StatusOr<double> Joules() const;        // drawn since the driver was loaded; updated some ten times a second
  absl::StatusOr<double> Megahertz() const;     // of the multiprocessors, now
  absl::StatusOr<double> LimitInWatts() const;  // that the driver enforces

 private:
  struct Nvml;
  explicit GpuMeter(std::unique_ptr<Nvml> nvml);
  std::unique_ptr<Nvml> nvml_;
};

}  // namespace strata
