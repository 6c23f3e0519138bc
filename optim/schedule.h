#pragma once
// The learning rate of a step.

#include <cstdint>

#include "optim/config.h"

namespace strata {

// optim.lr, or with linear scaling optim.lr * batch_tokens / base_tokens.
double PeakLearningRate(const OptimConfig& optim, const ScheduleConfig& schedule, int64_t batch_tokens);

// For step t from 1, with low = min_lr * peak, w = warmup, n = steps:
//   t <= w:   first + (peak - first) t / w                first = 0; with linear scaling min(optim.lr, peak)
//   linear:   peak + (low - peak) p                       p = (t - w) / (n - w)
//   cosine:   low + (peak - low) (1 + cos(pi p)) / 2
//   wsd:      peak until t = n - decay, then linear to low at t = n (Hägele et al., arXiv:2405.18392)
// After step n it stays at its last value.
double LearningRate(const OptimConfig& optim, const ScheduleConfig& schedule, int64_t batch_tokens, int64_t step);

}  // namespace strata
