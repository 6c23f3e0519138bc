#include "optim/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace strata {

double LearningRate(const OptimConfig& optim, const ScheduleConfig& s, int64_t step) {
  if (step < s.warmup) return optim.lr * static_cast<double>(step) / static_cast<double>(s.warmup);
  const bool wsd = s.type == ScheduleType::kWsd;
  const int64_t first = wsd ? s.steps - s.decay : s.warmup;  // the last step at the peak
  const int64_t fallen = std::min(step, s.steps) - first, fall = s.steps - first;
  if (fallen <= 0) return optim.lr;
  const double part = static_cast<double>(fallen) / static_cast<double>(fall);
  const double left = s.type == ScheduleType::kCosine ? (1 + std::cos(std::numbers::pi * part)) / 2 : 1 - part;
  return optim.lr * (s.min_lr + (1 - s.min_lr) * left);
}

}  // namespace strata
