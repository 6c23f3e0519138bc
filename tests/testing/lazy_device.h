#pragma once
// A device whose memory the host cannot touch, and which does nothing before it must: what is copied on a stream is copied when
// somebody waits for it. So a missing wait is a wrong result, and a read by address is a crash, without a GPU.

#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <vector>

#include "core/exec/device.h"

namespace strata::testing {

class LazyDevice final : public Device {
 public:
  absl::StatusOr<std::byte*> Reserve(Tier tier, int64_t bytes) override {
    auto memory = std::make_unique<std::byte[]>(static_cast<size_t>(bytes) + 1);
    std::byte* const at = memory.get();
    memory_.push_back(std::move(memory));
    return tier == Tier::kDevice ? Hide(at) : at;
  }
  absl::StatusOr<Stream> NewStream(const std::string&, Priority) override {
    streams_.emplace_back();
    return Stream{static_cast<int16_t>(streams_.size() - 1), nullptr};
  }
  absl::StatusOr<Event> NewEvent() override {
    events_.emplace_back();
    return Event{static_cast<int32_t>(events_.size() - 1), nullptr};
  }
  absl::Status Record(Event e, Stream s) override {
    const int64_t version = ++events_[e.id].recorded;
    events_[e.id].stream = s.id;
    streams_[s.id].push_back([this, e, version] { events_[e.id].reached = version; });
    return absl::OkStatus();
  }
  absl::Status Wait(Stream s, Event e) override {
    const int64_t version = events_[e.id].recorded;
    const int16_t from = events_[e.id].stream;
    if (version == 0) return absl::OkStatus();
    streams_[s.id].push_back([this, e, version, from] {
      while (events_[e.id].reached < version) RunOne(from);
    });
    return absl::OkStatus();
  }
  absl::Status Copy(void* dst, const void* src, int64_t bytes, Stream s) override {
    streams_[s.id].push_back([=] {
      if (bytes > 0) std::memcpy(Show(dst), Show(src), static_cast<size_t>(bytes));
    });
    return absl::OkStatus();
  }
  absl::Status Fill(void* dst, uint8_t byte, int64_t bytes, Stream s) override {
    streams_[s.id].push_back([=] { std::memset(Show(dst), byte, static_cast<size_t>(bytes)); });
    return absl::OkStatus();
  }
  absl::Status Drain(Stream s) override {
    while (!streams_[s.id].empty()) RunOne(s.id);
    return absl::OkStatus();
  }
  absl::Status Drain() override {
    for (size_t i = 0; i < streams_.size(); ++i) Drain(Stream{static_cast<int16_t>(i), nullptr}).IgnoreError();
    return absl::OkStatus();
  }
  absl::Status Close() override { return Drain(); }
  bool host_addressable() const override { return false; }
  absl::StatusOr<Event> NewTimer() override { return NewEvent(); }
  absl::StatusOr<double> Seconds(Event, Event) override { return 0.0; }

 private:
  struct Recorded {
    int64_t recorded = 0, reached = 0;
    int16_t stream = 0;
  };
  // Addresses of the device have the highest bit set: nothing is mapped there.
  static constexpr uintptr_t kHidden = uintptr_t{1} << 63;
  static std::byte* Hide(void* p) { return reinterpret_cast<std::byte*>(reinterpret_cast<uintptr_t>(p) | kHidden); }
  static void* Show(const void* p) { return reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(p) & ~kHidden); }

  void RunOne(int16_t stream) {
    const std::function<void()> work = std::move(streams_[stream].front());
    streams_[stream].pop_front();
    work();
  }

  std::vector<std::unique_ptr<std::byte[]>> memory_;
  std::deque<std::deque<std::function<void()>>> streams_;
  std::vector<Recorded> events_;
};

}  // namespace strata::testing
