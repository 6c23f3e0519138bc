#include "launch/job/timeline_report.h"

#include <gtest/gtest.h>

#include "parallel/pipeline/lower.h"
#include "parallel/pipeline/simulate.h"

namespace strata {
namespace {

// Two pipeline ranks that ran as a simulation says, with transfers that take time.
TEST(TimelineReport, PlannedBesideMeasured) {
  const Schedule s = MakeSchedule({.name = "1f1b", .ranks = 2, .micro_batches = 3}).value();
  StageDurations d;
  d.stages = {{.forward = 1, .input_grad = 1, .weight_grad = 1}, {.forward = 2, .input_grad = 1.5, .weight_grad = 1.5}};
  const double free_transfers = Simulate(s, d)->makespan();
  d.latency = 0.25;
  const LoweredSchedule l = LowerSchedule(s, d).value();
  Timeline run = Simulate(s, l, d, Streams::kOne).value();
  const absl::StatusOr<std::vector<GanttTrack>> tracks = MeasuredTracks(run);
  ASSERT_TRUE(tracks.ok()) << tracks.status();
  ASSERT_EQ(tracks->size(), 2u);
  EXPECT_EQ((*tracks)[0].name, "planned");
  EXPECT_DOUBLE_EQ((*tracks)[0].timeline.makespan(), free_transfers);
  EXPECT_EQ((*tracks)[1].timeline.ranks.size(), 2u);
  EXPECT_DOUBLE_EQ((*tracks)[1].timeline.makespan(), run.makespan());
  EXPECT_GT(run.makespan(), free_transfers);
  std::erase_if(run.ranks[1], [](const TimedAction& t) { return t.action.kind == Action::kB; });
  EXPECT_FALSE(MeasuredTracks(run).ok());
}

}  // namespace
}  // namespace strata
