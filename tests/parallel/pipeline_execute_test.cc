// Every schedule of one replica, lowered with transfers by simulated time, planned and executed: equal to one rank, in as
// many slots as the schedule says.

#include <gtest/gtest.h>

#include <algorithm>

#include "absl/strings/str_format.h"
#include "core/plan/slots.h"
#include "parallel/pipeline/lower.h"
#include "parallel/pipeline/schedule.h"
#include "tests/testing/small_pipeline.h"

namespace strata {
namespace {

struct Case {
  std::string name;
  int ranks = 0, micro_batches = 0;
};

// Sizes that a schedule refuses are left out; that each schedule takes one is checked below.
std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const std::string_view name : ScheduleNames()) {
    for (const auto& [ranks, micro_batches] : {std::pair(2, 4), std::pair(2, 7), std::pair(4, 8)}) {
      const Case c{std::string(name), ranks, micro_batches};
      if (MakeSchedule({.name = c.name, .ranks = ranks, .micro_batches = micro_batches}).ok()) cases.push_back(c);
    }
  }
  return cases;
}

struct Lowered {
  Schedule schedule;
  LoweredSchedule lowered;
};

Lowered Lower(const Case& c) {
  Lowered l;
  l.schedule = *MakeSchedule({.name = c.name, .ranks = c.ranks, .micro_batches = c.micro_batches});
  StageDurations durations = StageDurations::Uniform(l.schedule.stages(), {});
  durations.latency = 0.05;
  const absl::StatusOr<LoweredSchedule> lowered = LowerSchedule(l.schedule, durations);
  EXPECT_TRUE(lowered.ok()) << lowered.status();
  l.lowered = *lowered;
  return l;
}

class PipelineExecute : public ::testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Schedules, PipelineExecute, ::testing::ValuesIn(Cases()), [](const auto& info) {
  std::string name = absl::StrFormat("%s_p%d_m%d", info.param.name, info.param.ranks, info.param.micro_batches);
  std::replace_if(
      name.begin(), name.end(), [](char x) { return !std::isalnum(x) && x != '_'; }, '_');
  return name;
});

// No closed form here: the plan's own count of slots against the schedule's.
TEST_P(PipelineExecute, ThePlanHasTheSlotsOfTheSchedule) {
  const Lowered l = Lower(GetParam());
  for (const std::vector<Action>& actions : l.lowered.actions) {
    for (const Slots& s : StageSlots(actions, l.lowered.edges, HeldFrom::kForward)) {
      EXPECT_EQ(NumSlots(s), l.lowered.activation_slots[s.replica][s.stage]) << s.replica << "." << s.stage;
    }
    for (const Slots& s : StageSlots(actions, l.lowered.edges, HeldFrom::kArrival)) {
      EXPECT_EQ(NumSlots(s), l.lowered.slots[s.replica][s.stage]) << s.replica << "." << s.stage;
    }
  }
}

TEST_P(PipelineExecute, EqualsOneRank) {
  const Lowered l = Lower(GetParam());
  if (l.schedule.replicas > 1) return;  // two copies of the parameters: tests/equivalence
  testing::SmallPipeline pipeline{.ranks = l.schedule.ranks,
                                  .layers = l.schedule.stages(),
                                  .micro_batches = l.schedule.micro_batches,
                                  .rank_of = l.schedule.rank_of[0],
                                  .actions = l.lowered.actions,
                                  .edges = l.lowered.edges};
  const auto want = testing::RunPipeline(testing::OneRank(pipeline.micro_batches, pipeline.layers));
  const auto got = testing::RunPipeline(pipeline);
  ASSERT_TRUE(want.ok()) << want.status();
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_NEAR(got->loss, want->loss, 1e-12);
  ASSERT_EQ(got->parameters.size(), want->parameters.size());
  for (const auto& [name, values] : want->parameters) {
    for (size_t i = 0; i < values.size(); ++i) ASSERT_NEAR(got->parameters.at(name)[i], values[i], 1e-12) << name;
  }
  const absl::StatusOr<std::vector<Plan>> plans = testing::PlanPipeline(pipeline);
  ASSERT_TRUE(plans.ok()) << plans.status();
  for (size_t rank = 0; rank < plans->size(); ++rank) {
    const std::vector<Slots>& slots = (*plans)[rank].programs[0].slots;
    for (size_t i = 0; i < slots.size(); ++i) EXPECT_EQ(got->peak_slots[rank][i], NumSlots(slots[i])) << rank;
  }
}

TEST(PipelineExecute, EveryScheduleIsHere) {
  const std::vector<Case> cases = Cases();
  for (const std::string_view name : ScheduleNames()) {
    EXPECT_TRUE(std::any_of(cases.begin(), cases.end(), [&](const Case& c) { return c.name == name; })) << name;
  }
}

}  // namespace
}  // namespace strata
