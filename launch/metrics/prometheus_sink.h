#pragma once
// The latest value of every metric in Prometheus' text format, for node_exporter's textfile collector:
//   # TYPE strata_loss gauge
//   strata_loss{run="tiny"} 4.25

#include <map>
#include <string>

#include "core/base/env.h"
#include "launch/metrics/log_sink.h"

namespace strata {

class PrometheusSink final : public LogSink {
 public:
  PrometheusSink(Env& env, std::string path, std::string run)
      : env_(env), path_(std::move(path)), run_(std::move(run)) {}

  // Replaces the file, so that a reader never sees a part of one. Text has no place in the format and is left out.
  absl::Status Write(std::span<const Metric> metrics) override;
  absl::Status Close() override { return absl::OkStatus(); }

 private:
  Env& env_;
  const std::string path_, run_;
  std::map<std::string, std::string> latest_;  // value, as written, by the metric's name
};

}  // namespace strata
