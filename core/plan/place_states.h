#pragma once
// Where every state of a job lives: one static region a role, views inside their flat storage.

#include <map>
#include <span>
#include <string>
#include <vector>

#include "core/plan/plan.h"

namespace strata {

// The states of all programs, matched by name; a state that is a view in any program is a view. Appends the static regions,
// each at offset 0 of the arena so far: the caller lays regions out one after the other. Of a view into a flat state that is
// sharded (ZeRO), a rank stores the elements that lie in its range: PlannedState::first and count.
// Errors: InvalidArgument where dims do not divide; Internal where programs disagree about a state.
absl::StatusOr<std::vector<PlannedState>> PlaceStates(std::span<const ProgramSpec> programs, const Mesh& mesh,
                                                      std::vector<Region>& regions);

}  // namespace strata
