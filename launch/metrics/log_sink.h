#pragma once
// Where the numbers of a run go: [log] sinks of the config.

#include <cstdint>
#include <span>
#include <string_view>
#include <variant>

#include "absl/status/status.h"

namespace strata {

struct Metric {
  std::string_view name;  // with its unit where there is one: "step_s", "tokens_per_s"; percent: "data_wait"
  std::variant<int64_t, double, std::string_view> value;
};

// Used by one thread, of rank 0.
class LogSink {
 public:
  virtual ~LogSink() = default;
  // The metrics of one event of a step; the first is {"step", N}. Handed to the system before it returns.
  virtual absl::Status Write(std::span<const Metric> metrics) = 0;
  virtual absl::Status Close() = 0;
};

}  // namespace strata
