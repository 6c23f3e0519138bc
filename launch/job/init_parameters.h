#pragma once
// Initial values of states, a function of (seed, parameter name, global index): the same on every layout.

#include <cstddef>
#include <functional>
#include <span>

#include "core/plan/plan.h"
#include "models/model_config.h"

namespace strata {

// Fills the bytes of a parameter's or master weight's own state by the model's scheme; leaves flat states, moments and
// gradients (zero) alone.
void InitState(const PlannedState& state, const ModelConfig& config, uint64_t seed, std::span<std::byte> bytes);

// The local part of one tensor in row-major order: fn(local index, global index).
void ForEachElement(const LocalBox& box, const Shape& global, const std::function<void(int64_t, int64_t)>& fn);

}  // namespace strata
