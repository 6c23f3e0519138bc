#pragma once
// The sinks that a config names, as one.

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "core/base/env.h"
#include "launch/config/job_config.h"
#include "launch/metrics/log_sink.h"

namespace strata {

// jsonl: OUT/metrics.jsonl; tensorboard: OUT/tensorboard/events.out.tfevents.*; prometheus: OUT/metrics.prom.
// Each goes on after `resumed_step`, 0 = anew. Errors: Env's.
absl::StatusOr<std::unique_ptr<LogSink>> OpenSinks(Env& env, const JobConfig& config, int64_t resumed_step);

}  // namespace strata
