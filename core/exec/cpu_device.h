#pragma once
// The CPU as a Device: one stream, every call complete before it returns. Memory comes zeroed from mmap, 4096-byte aligned.

#include <chrono>
#include <utility>
#include <vector>

#include "core/exec/device.h"

namespace strata {

class CpuDevice : public Device {
 public:
  CpuDevice() = default;
  ~CpuDevice() override;
  CpuDevice(const CpuDevice&) = delete;
  CpuDevice& operator=(const CpuDevice&) = delete;

  // Errors: ResourceExhausted where the machine's physical memory is smaller; Unimplemented for Tier::kDisk.
  absl::StatusOr<std::byte*> Reserve(Tier tier, int64_t bytes) override;
  absl::StatusOr<Stream> NewStream(const std::string& name, Priority priority) override;
  absl::StatusOr<Event> NewEvent() override;
  absl::Status Record(Event e, Stream) override;
  absl::Status Wait(Stream, Event) override { return absl::OkStatus(); }
  absl::Status Copy(void* dst, const void* src, int64_t bytes, Stream s) override;
  absl::Status Fill(void* dst, uint8_t byte, int64_t bytes, Stream s) override;
  absl::Status Drain() override { return absl::OkStatus(); }
  absl::Status Drain(Stream) override { return absl::OkStatus(); }
  absl::Status Close() override { return absl::OkStatus(); }
  bool host_addressable() const override { return true; }
  absl::StatusOr<Event> NewTimer() override;
  absl::StatusOr<double> Seconds(Event from, Event to) override;

 private:
  std::vector<std::pair<void*, size_t>> maps_;
  int16_t streams_ = 0;
  std::vector<std::chrono::steady_clock::time_point> events_;
};

}  // namespace strata
