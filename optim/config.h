#pragma once
// [optim] and [schedule]: the optimizer and how its learning rate moves over the steps.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/config.h"

namespace strata {

enum class OptimizerType : uint8_t { kAdamW, kSgd };
inline constexpr std::string_view kOptimizerTypeNames[] = {"adamw", "sgd"};

// What bf16 weights are updated through. kSplit: the lower halves of the float32 that kFloat32 keeps whole (JoinHalves), so the same
// numbers in 2 bytes a weight instead of 4.
enum class MasterFormat : uint8_t { kFloat32, kSplit };
inline constexpr std::string_view kMasterFormatNames[] = {"float32", "split"};

// Formulas and sources: core/ops/optimizer.h. Which keys there are depends on `type`.
struct OptimConfig {
  OptimizerType type = OptimizerType::kAdamW;
  double lr = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;      // adamw, like beta1 and beta2
  double momentum = 0.9;  // sgd
  bool nesterov = false;  // sgd
  double weight_decay = 0.1;
  double clip = 1.0;
  std::vector<std::string> no_decay = {"*norm*", "*.bias"};

  void Describe(ConfigFields& f);
  void Check(ConfigChecks& c) const;
  bool operator==(const OptimConfig&) const = default;
};

enum class ScheduleType : uint8_t { kCosine, kLinear, kWsd };
inline constexpr std::string_view kScheduleTypeNames[] = {"cosine", "linear", "wsd"};

// kLinear: Goyal et al., "Accurate, Large Minibatch SGD" (arXiv:1706.02677), sec. 2.1: where the batch is k times as large,
// the learning rate is k times as large; and sec. 2.2: warmup then rises from the learning rate that is not scaled.
enum class LrScaling : uint8_t { kNone, kLinear };
inline constexpr std::string_view kLrScalingNames[] = {"none", "linear"};

// After `warmup` steps of linear rise to the peak: cosine and linear fall to min_lr * peak at the last step; wsd (warmup,
// stable, decay) stays at the peak and falls over the last `decay` steps.
struct ScheduleConfig {
  ScheduleType type = ScheduleType::kCosine;
  int64_t steps = 1000;
  int64_t warmup = 100;
  int64_t decay = 0;
  double min_lr = 0.1;
  LrScaling scaling = LrScaling::kNone;
  int64_t base_tokens = 0;

  void Describe(ConfigFields& f);
  void Check(ConfigChecks& c) const;
  bool operator==(const ScheduleConfig&) const = default;
};

}  // namespace strata
