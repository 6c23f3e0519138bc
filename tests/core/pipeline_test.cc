// Plans and executor with several stages: equal to one rank, with as many slots as are in flight, and errors that name the
// action and the edge.

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "tests/testing/small_pipeline.h"

namespace strata {
namespace {

using namespace testing;  // NOLINT: the little pipeline

PipelineRun RunIt(const SmallPipeline& pipeline) {
  absl::StatusOr<PipelineRun> run = RunPipeline(pipeline);
  EXPECT_TRUE(run.ok()) << run.status();
  return run.ok() ? *std::move(run) : PipelineRun{};
}

std::vector<Plan> Plans(const SmallPipeline& pipeline) {
  absl::StatusOr<std::vector<Plan>> plans = PlanPipeline(pipeline);
  EXPECT_TRUE(plans.ok()) << plans.status();
  return *std::move(plans);
}

struct Case {
  std::string name;
  SmallPipeline pipeline;
};

std::vector<Case> Cases() {
  std::vector<Case> cases = {
      {"OneRankSplit", OneForwardOneBackward(1, 5, Backward::kSplit)},
      {"OneForwardOneBackward2", OneForwardOneBackward(2, 5)},
      {"OneForwardOneBackward4", OneForwardOneBackward(4, 5)},
      {"FewerMicroBatchesThanRanks", OneForwardOneBackward(4, 2)},
      {"Split2", OneForwardOneBackward(2, 5, Backward::kSplit)},
      {"Split4", OneForwardOneBackward(4, 5, Backward::kSplit)},
      {"GPipe2", GPipe(2, 5)},
      {"GPipe4", GPipe(4, 5)},
      {"Loop2", TwoChunks(2, 5, Shape2::kLoop)},
      {"V2", TwoChunks(2, 5, Shape2::kV)},
      {"V1", TwoChunks(1, 5, Shape2::kV)},
  };
  for (const bool split : {false, true}) {
    SmallPipeline dp = OneForwardOneBackward(2, 5, split ? Backward::kSplit : Backward::kWhole);
    dp.dp = 2;
    cases.push_back({split ? "DataParallelSplit" : "DataParallel", dp});
  }
  SmallPipeline in_update = OneForwardOneBackward(2, 5);
  in_update.dp = 2;
  in_update.reduce = SmallPipeline::Reduce::kInUpdate;
  cases.push_back({"ReducedInTheUpdate", in_update});
  for (const auto& [name, pipeline] :
       {std::pair("ShardedLoop", TwoChunks(2, 5, Shape2::kLoop)), std::pair("ShardedV", TwoChunks(2, 5, Shape2::kV)),
        std::pair("ShardedSplit", OneForwardOneBackward(2, 5, Backward::kSplit))}) {
    cases.push_back({name, pipeline});
    cases.back().pipeline.dp = 2;
    cases.back().pipeline.weights = SmallPipeline::Weights::kSharded;
  }
  return cases;
}

class Pipeline : public ::testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(Schedules, Pipeline, ::testing::ValuesIn(Cases()),
                         [](const auto& info) { return info.param.name; });

TEST_P(Pipeline, EqualsOneRank) {
  const SmallPipeline& pipeline = GetParam().pipeline;
  const PipelineRun want = RunIt(OneRank(pipeline.micro_batches)), got = RunIt(pipeline);
  EXPECT_NEAR(got.loss, want.loss, 1e-12);
  ASSERT_EQ(got.parameters.size(), want.parameters.size());
  for (const auto& [name, values] : want.parameters) {
    const std::vector<double>& mine = got.parameters.at(name);
    for (size_t i = 0; i < values.size(); ++i) ASSERT_NEAR(mine[i], values[i], 1e-12) << name << " " << i;
  }
}

TEST_P(Pipeline, HoldsAsManySlotsAsPlanned) {
  const SmallPipeline& pipeline = GetParam().pipeline;
  const PipelineRun run = RunIt(pipeline);
  const absl::StatusOr<std::vector<Plan>> plans = PlanPipeline(pipeline);
  ASSERT_TRUE(plans.ok()) << plans.status();
  for (size_t rank = 0; rank < plans->size(); ++rank) {
    const Plan& plan = (*plans)[rank];
    const std::vector<Slots>& slots = plan.programs[0].slots;
    ASSERT_EQ(run.peak_slots[rank].size(), slots.size());
    for (size_t i = 0; i < slots.size(); ++i) {
      EXPECT_EQ(run.peak_slots[rank][i], plan.regions[slots[i].region].slots) << "rank " << rank;
    }
  }
}

TEST(PipelineRun, SaysWhenEachActionRan) {
  const SmallPipeline pipeline = OneForwardOneBackward(2, 5);
  const std::vector<Plan> plans = Plans(pipeline);
  const PipelineRun run = RunIt(pipeline);
  std::map<std::pair<int, int32_t>, double> sent;  // by rank and micro-batch: when the send of the activation began
  for (size_t rank = 0; rank < plans.size(); ++rank) {
    const std::vector<Action>& actions = plans[rank].programs[0].actions;
    ASSERT_EQ(run.times[rank].size(), actions.size());
    double at = 0;
    for (size_t i = 0; i < actions.size(); ++i) {
      const auto [begin, end] = run.times[rank][i];
      EXPECT_LE(at, begin);
      EXPECT_LE(begin, end);
      at = end;
      if (rank == 0 && actions[i].kind == Action::kSend) sent[{0, actions[i].micro_batch}] = begin;
      if (rank == 1 && actions[i].kind == Action::kRecv) {
        EXPECT_LT(sent.at({0, actions[i].micro_batch}), end);
      }
    }
  }
}

// A stage of 1F1B holds the activations of as many micro-batches as there are stages from it on; GPipe
// holds them all.
TEST(PipelinePlan, SlotsAreThePeakInFlight) {
  const auto slots = [](const SmallPipeline& pipeline) {
    std::vector<int> list;
    const absl::StatusOr<std::vector<Plan>> plans = PlanPipeline(pipeline);
    EXPECT_TRUE(plans.ok()) << plans.status();
    if (!plans.ok()) return list;
    for (const Plan& p : *plans) list.push_back(p.regions[p.programs[0].slots[0].region].slots);
    return list;
  };
  EXPECT_EQ(slots(OneRank(5)), std::vector<int>{1});
  EXPECT_EQ(slots(GPipe(2, 5)), (std::vector<int>{5, 5}));
  const std::vector<int> one = slots(OneForwardOneBackward(4, 8));
  EXPECT_EQ(one, (std::vector<int>{4, 3, 2, 1}));
}

// Breadth-first with two stages a rank: each is made whole for all forwards, then for all backwards, in one slot.
TEST(PipelinePlan, OneStageIsWholeAtATime) {
  SmallPipeline pipeline = TwoChunks(2, 5, Shape2::kLoop);
  pipeline.dp = 2;
  pipeline.weights = SmallPipeline::Weights::kSharded;
  const absl::StatusOr<std::vector<Plan>> plans = PlanPipeline(pipeline);
  ASSERT_TRUE(plans.ok()) << plans.status();
  const Program& p = (*plans)[0].programs[0];
  EXPECT_EQ(std::count_if(p.actions.begin(), p.actions.end(), [](auto& a) { return a.kind == Action::kUnshard; }), 3);
  const Slots& slots = p.slots.back();
  EXPECT_EQ(slots.stage, -1);
  const Region& region = (*plans)[0].regions[slots.region];
  EXPECT_EQ(region.slots, 1);
  EXPECT_EQ(region.bytes, 8 * 8 * 8);  // the weight of one layer
}

std::string Fault(const std::vector<Plan>& plans) { return std::string(VerifyPlans(plans).message()); }

size_t Find(const Program& p, Action::Kind kind, int micro_batch) {
  const auto it = std::find_if(p.actions.begin(), p.actions.end(),
                               [&](const Action& a) { return a.kind == kind && a.micro_batch == micro_batch; });
  EXPECT_NE(it, p.actions.end());
  return static_cast<size_t>(it - p.actions.begin());
}
void SwapActions(Program& p, size_t a, size_t b) {
  std::swap(p.actions[a], p.actions[b]);
  for (Slots& s : p.slots) std::swap(s.by_action[a], s.by_action[b]);
}

TEST(VerifyPipeline, FindsASlotThatIsTakenWhileItIsHeld) {
  std::vector<Plan> plans = Plans(GPipe(2, 3));
  Slots& slots = plans[0].programs[0].slots[0];
  for (Slots::Use& use : slots.by_action) use.slot = std::min<int16_t>(use.slot, 1);
  EXPECT_TRUE(absl::StrContains(Fault(plans), "overwritten")) << Fault(plans);
  EXPECT_TRUE(absl::StrContains(Fault(plans), "rank 0: plan: train B0.1")) << Fault(plans);
}

TEST(VerifyPipeline, FindsRanksThatWaitForEachOther) {
  std::vector<Plan> plans = Plans(GPipe(2, 3));
  Program& first = plans[0].programs[0];
  // The first rank sends the activation of 2 only after it has the gradient of 0, which comes after that activation.
  const size_t send = Find(first, Action::kSend, 2), receive = Find(first, Action::kRecv, 0);
  ASSERT_LT(send, receive);
  for (size_t i = send; i < receive; ++i) SwapActions(first, i, i + 1);
  EXPECT_TRUE(
      absl::StrContains(Fault(plans),
                        "rank 0 in train recv 0.0 over edge 1->0 gradient waits for rank 1; rank 1 in train recv "
                        "1.2 over edge 0->1 activation waits for rank 0"))
      << Fault(plans);
}

TEST(VerifyPipeline, FindsMessagesInAnotherOrder) {
  std::vector<Plan> plans = Plans(GPipe(2, 3));
  Program& last = plans[1].programs[0];
  std::swap(last.actions[Find(last, Action::kRecv, 1)].micro_batch,
            last.actions[Find(last, Action::kRecv, 2)].micro_batch);
  const std::string fault = Fault(plans);
  EXPECT_TRUE(absl::StrContains(fault, "message 1 of communicator edge 0->1 activation") ||
              absl::StrContains(fault, "not written") || absl::StrContains(fault, "overwritten"))
      << fault;
}

TEST(VerifyPipeline, FindsAMessageOfAnotherSize) {
  std::vector<Plan> plans = Plans(GPipe(2, 3));
  for (Segment& s : plans[1].programs[0].segments) {
    if (s.kind == Action::kRecv) s.steps[0].call.count /= 2;
  }
  EXPECT_TRUE(
      absl::StrContains(Fault(plans), "message 0 of communicator edge 0->1 activation: rank 0 issues send of 64"))
      << Fault(plans);
}

TEST(VerifyPipeline, FindsAReceiveThatIsMissing) {
  std::vector<Plan> plans = Plans(GPipe(2, 3));
  Program& last = plans[1].programs[0];
  const size_t receive = Find(last, Action::kRecv, 0);
  last.actions.erase(last.actions.begin() + static_cast<int64_t>(receive));
  for (Slots& s : last.slots) s.by_action.erase(s.by_action.begin() + static_cast<int64_t>(receive));
  EXPECT_TRUE(absl::StrContains(Fault(plans), "rank 1: plan: train F1.0")) << Fault(plans);
}

TEST(PipelinePlan, ActionsThatLeaveNodesOutAreRefused) {
  SmallPipeline pipeline = OneForwardOneBackward(2, 3, Backward::kSplit);
  auto& list = pipeline.compute[0];
  list.erase(std::remove_if(list.begin(), list.end(), [](const Action& a) { return a.kind == Action::kW; }),
             list.end());
  const absl::Status status = PlanPipeline(pipeline).status();
  EXPECT_TRUE(absl::StrContains(std::string(status.message()), "no action of program train runs W of stage 0"))
      << status;
}

}  // namespace
}  // namespace strata
