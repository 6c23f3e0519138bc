#pragma once
// Metrics as JSON lines, one a logged step: {"step":10,"loss":7.61,"lr":0.0001,...}.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/base/env.h"

namespace strata {

struct Metric {
  std::string_view name;  // with its unit where there is one: "step_s", "tokens_per_s"
  std::variant<int64_t, double, std::string_view> value;
};

// Not thread-safe: one writer a file. A line is one write, so a killed run leaves whole lines but for the last.
class MetricsWriter {
 public:
  // Keeps the lines of an existing file whose "step" is below first_step and drops the rest: those of steps that a resumed
  // run repeats, and a torn last line. first_step = 0 starts anew. Errors: Env's.
  static absl::StatusOr<std::unique_ptr<MetricsWriter>> Open(Env& env, const std::string& path, int64_t first_step);

  // One line, keys in the given order, handed to the system before it returns. NaN and infinities become null.
  absl::Status Write(std::span<const Metric> metrics);
  absl::Status Close();

 private:
  MetricsWriter(std::unique_ptr<WritableFile> file, int64_t offset) : file_(std::move(file)), offset_(offset) {}

  std::unique_ptr<WritableFile> file_;
  int64_t offset_;  // end of the file
};

}  // namespace strata
