#pragma once
// Initial values of states, a function of (seed, parameter name, global index): the same on every layout.

#include <cstddef>
#include <span>

#include "core/base/thread_pool.h"
#include "core/plan/plan.h"
#include "core/plan/weight_states.h"
#include "models/model_config.h"

namespace strata {

// Fills the bytes of a parameter's or master weight's own state by the model's scheme, padding with zeros; leaves flat states, moments and
// gradients (zero) alone.
// Any number of threads gives the same bytes.
void InitState(const PlannedState& state, LiveWeights live, const ModelConfig& config, uint64_t seed,
               std::span<std::byte> bytes, ThreadPool* pool = nullptr);
bool HasInitialValue(const PlannedState& state);          // whether InitState fills it
std::string_view ParameterOf(const PlannedState& state);  // the name of such a state's parameter

// Where element `index` of a tensor of `shape`, which is `model` padded at the ends, lies in `model`; row-major; -1: padding.
int64_t IndexWithoutPadding(const Shape& shape, const Shape& model, int64_t index);

// The rows of the local part of one tensor: fn(local index of the first element, its global index, elements), in any order.
void ForEachRow(const LocalBox& box, const Shape& global, absl::FunctionRef<void(int64_t, int64_t, int64_t)> fn,
                ThreadPool* pool = nullptr);

}  // namespace strata
