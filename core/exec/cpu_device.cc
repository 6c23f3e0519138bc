#include "core/exec/cpu_device.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "absl/strings/str_format.h"

namespace strata {

CpuDevice::~CpuDevice() {
  for (const auto& [p, bytes] : maps_) munmap(p, bytes);
}

absl::StatusOr<std::byte*> CpuDevice::Reserve(Tier tier, int64_t bytes) {
  if (tier == Tier::kDisk) return absl::UnimplementedError("the CPU device has no disk tier");
  const double physical = static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGE_SIZE));
  if (static_cast<double>(bytes) > physical) {
    return absl::ResourceExhaustedError(absl::StrFormat("the plan needs %.2f GiB a rank, this machine has %.2f GiB",
                                                        bytes / 1073741824.0, physical / 1073741824.0));
  }
  const size_t size = static_cast<size_t>(bytes > 0 ? bytes : 1);
  void* p = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED)
    return absl::ResourceExhaustedError(absl::StrFormat("mmap of %d bytes: %s", bytes, strerror(errno)));
  maps_.emplace_back(p, size);
  return static_cast<std::byte*>(p);
}

absl::StatusOr<Stream> CpuDevice::NewStream(const std::string&, Priority) { return Stream{streams_++, nullptr}; }
absl::StatusOr<Event> CpuDevice::NewEvent() {
  events_.emplace_back();
  return Event{static_cast<int32_t>(events_.size() - 1), nullptr};
}
absl::StatusOr<Event> CpuDevice::NewTimer() { return NewEvent(); }
absl::Status CpuDevice::Record(Event e, Stream) {
  events_[e.id] = std::chrono::steady_clock::now();
  return absl::OkStatus();
}
absl::StatusOr<double> CpuDevice::Seconds(Event from, Event to) {
  return std::chrono::duration<double>(events_[to.id] - events_[from.id]).count();
}

absl::Status Device::BeginCapture(Stream) { return absl::UnimplementedError("this device captures nothing"); }
absl::StatusOr<Captured> Device::EndCapture(Stream) { return absl::UnimplementedError("this device captures nothing"); }
absl::Status Device::Replay(Captured, Stream) { return absl::UnimplementedError("this device captures nothing"); }

absl::Status CpuDevice::Copy(void* dst, const void* src, int64_t bytes, Stream) {
  if (bytes > 0) std::memcpy(dst, src, static_cast<size_t>(bytes));
  return absl::OkStatus();
}
absl::Status CpuDevice::Fill(void* dst, uint8_t byte, int64_t bytes, Stream) {
  std::memset(dst, byte, static_cast<size_t>(bytes));
  return absl::OkStatus();
}

}  // namespace strata
