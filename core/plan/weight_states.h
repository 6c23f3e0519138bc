#pragma once
// Values of weights on their way into the memory of states and out of it: of parameters and of what they are updated through.

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "core/plan/plan.h"

namespace strata {

// How bf16 parameters come from wider values: to nearest even, or as the upper halves of float32 whose lower ones the plan's
// masters are (DType::kLow16).
enum class LiveWeights : uint8_t { kNearestEven, kUpperHalves };

inline LiveWeights LiveWeightsOf(const Plan& plan) {
  const bool halves = std::any_of(plan.states.begin(), plan.states.end(), [](const PlannedState& s) {
    return s.role == Role::kMaster && s.spec.dtype == DType::kLow16;
  });
  return halves ? LiveWeights::kUpperHalves : LiveWeights::kNearestEven;
}

// An element of a floating-point dtype or of low16, from any value.
inline void PutWeight(DType dtype, LiveWeights live, double value, std::byte* to) {
  const auto put = [to](auto v) { std::memcpy(to, &v, sizeof(v)); };
  const auto f = static_cast<float>(value);
  switch (dtype) {
    case DType::kF64: return put(value);
    case DType::kF32: return put(f);
    case DType::kLow16: return put(SplitHalves(f).low);
    default: return put(live == LiveWeights::kUpperHalves ? SplitHalves(f).high : BF16(f));
  }
}

// The weight whose upper half, bf16, and lower half, low16, lie there.
inline float JoinHalvesAt(const std::byte* high, const std::byte* low) {
  BF16 upper;
  uint16_t lower;
  std::memcpy(&upper, high, sizeof(upper));
  std::memcpy(&lower, low, sizeof(lower));
  return JoinHalves(upper, lower);
}

}  // namespace strata
