#include "launch/job/timeline_report.h"

#include <algorithm>

#include "core/base/status.h"
#include "parallel/pipeline/schedule.h"
#include "parallel/pipeline/simulate.h"
#include "parallel/pipeline/validate.h"

namespace strata {
namespace {

// The compute order that the actions of each pipeline rank have.
Schedule ScheduleOf(const Timeline& timeline) {
  Schedule s{.name = "measured", .ranks = static_cast<int>(timeline.ranks.size())};
  int stages = 0;
  for (const std::vector<TimedAction>& list : timeline.ranks) {
    s.compute.emplace_back();
    for (const TimedAction& t : list) {
      const Action& a = t.action;
      if (!IsCompute(a)) continue;
      s.compute.back().push_back(a);
      s.replicas = std::max(s.replicas, a.replica + 1);
      s.micro_batches = std::max(s.micro_batches, a.micro_batch + 1);
      stages = std::max(stages, a.stage + 1);
    }
  }
  s.chunks = stages / s.ranks;
  s.rank_of.assign(s.replicas, std::vector<int>(stages, -1));
  for (int r = 0; r < s.ranks; ++r) {
    for (const Action& a : s.compute[r]) s.rank_of[a.replica][a.stage] = r;
  }
  return s;
}

}  // namespace

absl::StatusOr<std::vector<GanttTrack>> MeasuredTracks(Timeline measured) {
  const Schedule schedule = ScheduleOf(measured);
  RETURN_IF_ERROR(ValidateSchedule(schedule));
  const StageDurations durations = DurationsOf(measured, StageDurations::Uniform(schedule.stages(), {}));
  ASSIGN_OR_RETURN(Timeline planned, Simulate(schedule, durations));
  return std::vector<GanttTrack>{{"planned", std::move(planned)}, {"measured", std::move(measured)}};
}

}  // namespace strata
