#include "launch/job/timeline_report.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "parallel/pipeline/schedule.h"
#include "parallel/pipeline/simulate.h"
#include "parallel/pipeline/validate.h"

namespace strata {
namespace {

// The compute order that the actions of each pipeline rank have.
Schedule ScheduleOf(const std::vector<const std::vector<Action>*>& lists) {
  Schedule s{.name = "measured", .ranks = static_cast<int>(lists.size())};
  int stages = 0;
  for (const std::vector<Action>* list : lists) {
    s.compute.emplace_back();
    for (const Action& a : *list) {
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

bool HasFirstStage(const std::vector<Action>& list) {
  return std::any_of(list.begin(), list.end(),
                     [](const Action& a) { return IsCompute(a) && a.replica == 0 && a.stage == 0; });
}

}  // namespace

absl::StatusOr<std::vector<GanttTrack>> MeasuredTracks(std::span<const Plan> plans,
                                                       const std::vector<std::vector<Executor::TimedAction>>& times) {
  std::vector<const std::vector<Action>*> all, lists;
  for (const Plan& plan : plans) all.push_back(&plan.FindProgram("train")->actions);
  // The pipeline is the outermost axis: the ranks of a stage are neighbours.
  const size_t per_stage = std::count_if(all.begin(), all.end(), [](const auto* list) { return HasFirstStage(*list); });
  GanttTrack measured{.name = "measured"}, planned{.name = "planned"};
  for (size_t rank = 0; rank < all.size(); rank += per_stage) {
    lists.push_back(all[rank]);
    if (rank >= times.size() || times[rank].size() != all[rank]->size()) {
      return absl::InvalidArgumentError(
          absl::StrFormat("rank %d has no measured times of its %d actions", rank, all[rank]->size()));
    }
    std::vector<TimedAction>& track = measured.timeline.ranks.emplace_back();
    for (size_t i = 0; i < all[rank]->size(); ++i) {
      const Executor::TimedAction& t = times[rank][i];
      track.push_back({(*all[rank])[i], t.begin, t.end});
    }
  }
  const Schedule schedule = ScheduleOf(lists);
  RETURN_IF_ERROR(ValidateSchedule(schedule));
  const StageDurations durations = DurationsOf(measured.timeline, StageDurations::Uniform(schedule.stages(), {}));
  ASSIGN_OR_RETURN(planned.timeline, Simulate(schedule, durations));
  return std::vector<GanttTrack>{std::move(planned), std::move(measured)};
}

}  // namespace strata
