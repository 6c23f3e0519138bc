#pragma once
// Which slot each action works on. A slot is taken where the first action needs it, the lowest that is free, and is free
// again after the last: so there are as many as are in use at a time.

#include <span>
#include <vector>

#include "core/plan/plan.h"

namespace strata {

// What micro-batches leave on each stage of the rank, in the order of (replica, stage); regions are not set. kForward: what
// F and its backward make. kArrival: the stage's input, which arrives while the stage is still full of activations, and is
// of no use any more when the gradient is sent.
enum class HeldFrom : uint8_t { kForward, kArrival };
std::vector<Slots> StageSlots(std::span<const Action> actions, std::span<const Edge> edges, HeldFrom from);

// Parameters of stages that kUnshard made whole, until kReshard; replica and stage are -1, and all slots where there are none.
Slots UnshardedSlots(std::span<const Action> actions);

int NumSlots(const Slots& slots);

}  // namespace strata
