#pragma once
// Metrics as JSON lines, one a logged step: {"step":10,"loss":7.61,"lr":0.0001,...}.

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "core/base/env.h"
#include "launch/metrics/log_sink.h"

namespace strata {

// Not thread-safe: one writer a file. A line is one write, so a killed run leaves whole lines but for the last.
class JsonlSink final : public LogSink {
 public:
  // Keeps the lines of an existing file up to the step that the run resumes after, and drops the rest: those of steps
  // that it repeats, and a torn last line. resumed_step = 0 starts anew. Errors: Env's.
  static absl::StatusOr<std::unique_ptr<JsonlSink>> Open(Env& env, const std::string& path, int64_t resumed_step);

  // One line, keys in the given order, handed to the system before it returns. NaN and infinities become null.
  absl::Status Write(std::span<const Metric> metrics) override;
  absl::Status Close() override;

 private:
  JsonlSink(std::unique_ptr<WritableFile> file, int64_t offset) : file_(std::move(file)), offset_(offset) {}

  std::unique_ptr<WritableFile> file_;
  int64_t offset_;  // end of the file
};

}  // namespace strata
