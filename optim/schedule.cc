#include "optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace strata {

double PeakLearningRate(const OptimConfig& optim, const ScheduleConfig& s, int64_t batch_tokens) {
  if (s.scaling == LrScaling::kNone) return optim.lr;
  return optim.lr * (static_cast<double>(batch_tokens) / static_cast<double>(s.base_tokens));
}

double LearningRate(const OptimConfig& optim, const ScheduleConfig& s, int64_t batch_tokens, int64_t step) {
  const double peak = PeakLearningRate(optim, s, batch_tokens);
  if (step < s.warmup) {
    const double first = s.scaling == LrScaling::kNone ? 0 : std::min(optim.lr, peak);
    return first + (peak - first) * static_cast<double>(step) / static_cast<double>(s.warmup);
  }
  const bool wsd = s.type == ScheduleType::kWsd;
  const int64_t last_at_peak = wsd ? s.steps - s.decay : s.warmup;
  const int64_t fallen = std::min(step, s.steps) - last_at_peak, fall = s.steps - last_at_peak;
  if (fallen <= 0) return peak;
  const double part = static_cast<double>(fallen) / static_cast<double>(fall);
  const double left = s.type == ScheduleType::kCosine ? (1 + std::cos(std::numbers::pi * part)) / 2 : 1 - part;
  return peak * (s.min_lr + (1 - s.min_lr) * left);
}

}  // namespace strata
