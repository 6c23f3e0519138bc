#include "launch/job/timeline_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "parallel/pipeline/lower.h"
#include "parallel/pipeline/simulate.h"

namespace strata {
namespace {

// Two pipeline ranks, each of two ranks, that ran as a simulation says, with transfers that take time.
TEST(TimelineReport, PlannedBesideMeasured) {
  const Schedule s = MakeSchedule({.name = "1f1b", .ranks = 2, .micro_batches = 3}).value();
  StageDurations d;
  d.stages = {{.forward = 1, .input_grad = 1, .weight_grad = 1}, {.forward = 2, .input_grad = 1.5, .weight_grad = 1.5}};
  const double free_transfers = Simulate(s, d)->makespan();
  d.latency = 0.25;
  const LoweredSchedule l = LowerSchedule(s, d).value();
  const Timeline run = Simulate(s, l, d, Streams::kOne).value();
  std::vector<Plan> plans(4);
  std::vector<std::vector<Executor::TimedAction>> times(4);
  for (int rank = 0; rank < 4; ++rank) {
    plans[rank].programs.push_back({.name = "train", .actions = l.actions[rank / 2]});
    for (const TimedAction& t : run.ranks[rank / 2]) times[rank].push_back({t.begin + 7, t.end + 7});
  }
  const absl::StatusOr<std::vector<GanttTrack>> tracks = MeasuredTracks(plans, times);
  ASSERT_TRUE(tracks.ok()) << tracks.status();
  ASSERT_EQ(tracks->size(), 2u);
  EXPECT_EQ((*tracks)[0].name, "planned");
  EXPECT_DOUBLE_EQ((*tracks)[0].timeline.makespan(), free_transfers);
  EXPECT_EQ((*tracks)[1].timeline.ranks.size(), 2u);
  EXPECT_DOUBLE_EQ((*tracks)[1].timeline.makespan(), run.makespan() + 7);
  EXPECT_GT(run.makespan(), free_transfers);
  times[2].pop_back();
  EXPECT_THAT(std::string(MeasuredTracks(plans, times).status().message()),
              ::testing::HasSubstr("rank 2 has no measured"));
}

}  // namespace
}  // namespace strata
