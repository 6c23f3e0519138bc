#pragma once
// A measured step beside what its schedule promises, for the Gantt chart of `strata bench step --timeline`.

#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "core/exec/executor.h"
#include "core/plan/plan.h"
#include "parallel/pipeline/gantt.h"

namespace strata {

// times[rank]: Executor::Timeline("train") of that rank, or empty where it does not matter; by one clock. Tracks "measured",
// of the first rank of each pipeline rank, and "planned": the same compute order with each stage's mean measured durations and
// free transfers. What the measured track has more is waiting and communication.
// Errors: InvalidArgument where times are missing; those of ValidateSchedule.
absl::StatusOr<std::vector<GanttTrack>> MeasuredTracks(std::span<const Plan> plans,
                                                       const std::vector<std::vector<Executor::TimedAction>>& times);

}  // namespace strata
