#pragma once
// [optim] and [schedule]: the optimizer and how its learning rate moves over the steps.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/config.h"

namespace strata {

enum class OptimizerType : uint8_t { kAdamW };
inline constexpr std::string_view kOptimizerTypeNames[] = {"adamw"};

// AdamW: decoupled weight decay. Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (2019).
struct OptimConfig {
  OptimizerType type = OptimizerType::kAdamW;
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;
  double clip = 1.0;
  std::vector<std::string> no_decay = {"*norm*", "*.bias"};

  void Describe(ConfigFields& f);
  void Check(ConfigChecks& c) const;
  bool operator==(const OptimConfig&) const = default;
};

enum class ScheduleType : uint8_t { kCosine, kLinear, kWsd };
inline constexpr std::string_view kScheduleTypeNames[] = {"cosine", "linear", "wsd"};

// After `warmup` steps of linear rise to optim.lr: cosine and linear fall to min_lr * optim.lr at the last step; wsd
// (warmup, stable, decay) stays at the peak and falls over the last `decay` steps.
struct ScheduleConfig {
  ScheduleType type = ScheduleType::kCosine;
  int64_t steps = 1000;
  int64_t warmup = 100;
  int64_t decay = 0;
  double min_lr = 0.1;

  void Describe(ConfigFields& f);
  void Check(ConfigChecks& c) const;
  bool operator==(const ScheduleConfig&) const = default;
};

}  // namespace strata
