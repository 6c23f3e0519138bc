#pragma once
// A measured step beside what its schedule promises, for the Gantt chart of `strata bench step --timeline`.

#include <vector>

#include "absl/status/statusor.h"
#include "parallel/pipeline/gantt.h"

namespace strata {

// Tracks "measured", as given, of one rank of each pipeline rank, and "planned": the same compute order with each stage's mean
// measured durations and free transfers. What the measured track has more is waiting and communication.
// Errors: those of ValidateSchedule.
absl::StatusOr<std::vector<GanttTrack>> MeasuredTracks(Timeline measured);

}  // namespace strata
