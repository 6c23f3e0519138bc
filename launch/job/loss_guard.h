#pragma once
// [guard]: what becomes of a step whose loss or gradient is not finite, or whose loss jumps. The step's own update is held
// back on the device (core/ops/optimizer.h, Guard), alike on all ranks; this says why, and whether training goes on.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "launch/config/job_config.h"
#include "launch/job/rank_runner.h"

namespace strata {

// One a rank, all fed the same reports, so that all decide alike. Knows the losses since the process started.
class LossGuard {
 public:
  explicit LossGuard(const GuardConfig& config) : config_(config) {}

  // Nats a token above which the next step's update is held back: mean + spike_z * standard deviation of the last
  // `window` losses that were applied. Infinity where spike_z is 0 or the window is not full.
  double MaxLoss() const;

  // After a step. Empty: its update was applied. A text: it was skipped, and this is why, with the batch as `describe`
  // names it ("samples 8 to 15"). Errors: Internal with that text where the config says halt, or after kMaxSkips in a row.
  absl::StatusOr<std::string> Judge(int64_t step, const StepReport& report, absl::FunctionRef<std::string()> describe);

  static constexpr int kMaxSkips = 10;

 private:
  struct Spread {
    double mean = 0, deviation = 0;
  };
  Spread WindowSpread() const;
  bool full() const { return static_cast<int64_t>(losses_.size()) == config_.window; }

  const GuardConfig config_;
  std::vector<double> losses_;  // a ring of the last `window`
  size_t next_ = 0;             // where the next loss goes
  int skips_ = 0;               // in a row
};

}  // namespace strata
