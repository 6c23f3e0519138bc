#include "launch/job/loss_guard.h"

#include <cmath>
#include <limits>

#include "absl/strings/str_format.h"

namespace strata {

LossGuard::Spread LossGuard::WindowSpread() const {
  Spread s;
  for (const double loss : losses_) s.mean += loss / static_cast<double>(losses_.size());
  double squares = 0;
  for (const double loss : losses_) squares += (loss - s.mean) * (loss - s.mean);
  s.deviation = std::sqrt(squares / static_cast<double>(losses_.size()));
  return s;
}

double LossGuard::MaxLoss() const {
  if (config_.spike_z == 0 || !full()) return std::numeric_limits<double>::infinity();
  const Spread s = WindowSpread();
  return s.mean + config_.spike_z * s.deviation;
}

absl::StatusOr<std::string> LossGuard::Judge(int64_t step, const StepReport& report,
                                             absl::FunctionRef<std::string()> describe) {
  if (!report.skipped) {
    skips_ = 0;
    if (config_.spike_z == 0) return "";
    if (!full()) losses_.push_back(0);
    losses_[next_] = report.loss;
    next_ = (next_ + 1) % static_cast<size_t>(config_.window);
    return "";
  }
  ++skips_;
  GuardAction action = config_.nan;
  std::string why;
  if (!std::isfinite(report.loss)) {
    why = absl::StrFormat("the loss is %f", report.loss);
  } else if (!std::isfinite(report.grad_norm)) {
    why = absl::StrFormat("the gradient norm is %f", report.grad_norm);
  } else {
    const Spread s = WindowSpread();
    why = absl::StrFormat("the loss %.4f is %.1f standard deviations above the mean %.4f of the last %d steps",
                          report.loss, (report.loss - s.mean) / s.deviation, s.mean, config_.window);
    action = config_.spike;
  }
  const std::string text = absl::StrFormat("step %d: %s; %s; its update is not applied", step, why, describe());
  if (action == GuardAction::kHalt) return absl::InternalError(text);
  if (skips_ >= kMaxSkips) {
    return absl::InternalError(absl::StrFormat("%s; that is the %dth step in a row", text, skips_));
  }
  return text;
}

}  // namespace strata
