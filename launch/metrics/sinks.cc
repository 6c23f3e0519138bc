#include "launch/metrics/sinks.h"

#include <vector>

#include "core/base/status.h"
#include "launch/metrics/jsonl_sink.h"
#include "launch/metrics/prometheus_sink.h"
#include "launch/metrics/tensorboard_sink.h"

namespace strata {
namespace {

class Sinks final : public LogSink {
 public:
  explicit Sinks(std::vector<std::unique_ptr<LogSink>> sinks) : sinks_(std::move(sinks)) {}
  absl::Status Write(std::span<const Metric> metrics) override {
    absl::Status status;
    for (const auto& sink : sinks_) status.Update(sink->Write(metrics));
    return status;
  }
  absl::Status Close() override {
    absl::Status status;
    for (const auto& sink : sinks_) status.Update(sink->Close());
    return status;
  }

 private:
  std::vector<std::unique_ptr<LogSink>> sinks_;
};

using Opened = absl::StatusOr<std::unique_ptr<LogSink>>;

Opened OpenJsonl(Env& env, const JobConfig& config, int64_t resumed_step) {
  return JsonlSink::Open(env, config.run.out + "/metrics.jsonl", resumed_step);
}
Opened OpenTensorboard(Env& env, const JobConfig& config, int64_t resumed_step) {
  return TensorboardSink::Open(env, config.run.out + "/tensorboard", resumed_step);
}
Opened OpenPrometheus(Env& env, const JobConfig& config, int64_t) {
  return std::make_unique<PrometheusSink>(env, config.run.out + "/metrics.prom", config.run.name);
}

constexpr Opened (*kOpen[])(Env&, const JobConfig&, int64_t) = {OpenJsonl, OpenTensorboard, OpenPrometheus};
static_assert(std::size(kOpen) == std::size(kSinkNames));

}  // namespace

Opened OpenSinks(Env& env, const JobConfig& config, int64_t resumed_step) {
  std::vector<std::unique_ptr<LogSink>> sinks;
  for (size_t i = 0; i < std::size(kSinkNames); ++i) {
    if (std::ranges::count(config.log.sinks, kSinkNames[i]) == 0) continue;
    ASSIGN_OR_RETURN(sinks.emplace_back(), kOpen[i](env, config, resumed_step));
  }
  return std::make_unique<Sinks>(std::move(sinks));
}

}  // namespace strata
