// Lowering, the text form, and the validator: golden lists, and every rule seen red on a planted fault.

#include "parallel/pipeline/lower.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "core/plan/edge_name.h"
#include "parallel/pipeline/rendezvous.h"
#include "parallel/pipeline/simulate.h"
#include "parallel/pipeline/text.h"
#include "parallel/pipeline/validate.h"
#include "tests/testing/pipeline.h"

namespace strata {
namespace {

using ::testing::HasSubstr;
using testing::UnitStages;

Schedule Make(const ScheduleSpec& spec) { return MakeSchedule(spec).value(); }
LoweredSchedule Lower(const Schedule& s, const LowerOptions& options = {}) {
  return LowerSchedule(s, UnitStages(s), options).value();
}

TEST(PipelineText, DumpsAndReadsBack) {
  EXPECT_EQ(DumpSchedule(Make({.name = "1f1b", .ranks = 2, .micro_batches = 3})),
            "# 1f1b\n0F0,0F1,0B0,0F2,0B1,0B2\n1F0,1B0,1F1,1B1,1F2,1B2\n");
  EXPECT_EQ(DumpSchedule(Make({.name = "zb-h1", .ranks = 2, .micro_batches = 2})),
            "# zb-h1\n0F0,0F1,0I0,0W0,0I1,0W1\n1F0,1I0,1F1,1I1,1W0,1W1\n");
  EXPECT_EQ(DumpSchedule(Make({.name = "chimera", .ranks = 2, .micro_batches = 2})),
            "# chimera\n# replicas = 2\n0F0,1F1,1B1,0B0\n0F1,1F0,1B0,0B1\n");
  const std::string pairs = DumpSchedule(Make({.name = "dualpipe", .ranks = 2, .micro_batches = 6}));
  EXPECT_THAT(pairs, HasSubstr("+"));
  const absl::StatusOr<Schedule> again = ParseSchedule(pairs, "dualpipe");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(DumpSchedule(*again), pairs);
  const absl::StatusOr<Schedule> by_hand =
      ParseSchedule("0F0 0F1\t0B1 0B0\r\n\n# a comment\n1F0 1F1 1B1, 1B0\n", "mine");
  ASSERT_TRUE(by_hand.ok()) << by_hand.status();
  EXPECT_EQ(by_hand->ranks, 2);
  EXPECT_EQ(by_hand->micro_batches, 2);
  EXPECT_EQ(by_hand->rank_of, (std::vector<std::vector<int>>{{0, 1}}));
}

TEST(PipelineText, SaysWhatIsWrong) {
  const auto message = [](std::string_view text) { return std::string(ParseSchedule(text, "x").status().message()); };
  EXPECT_THAT(message(""), HasSubstr("a row a rank"));
  EXPECT_THAT(message("0F0,0B0\n1F0,1X0\n"), HasSubstr("line 2: cell \"1X0\": expected stage, one of F B I W"));
  EXPECT_THAT(message("0F0 0B0 -1F0\n"), HasSubstr("cell \"-1F0\""));
  EXPECT_THAT(message("0F99999999999\n"), HasSubstr("cell"));
  EXPECT_THAT(message("0F0+0B0+0F1\n"), HasSubstr("at most two"));
  EXPECT_THAT(message("0F0 0B0 1F0 1B0\n1F1 1B1 0F1 0B1\n"), HasSubstr("begins with \"# replicas = 2\""));
  EXPECT_THAT(message("0F0 0B0\n0F0 0B0\n"), HasSubstr("stage 0 is on ranks 0 and 1"));
  EXPECT_THAT(message("# replicas = 3\n0F0\n"), HasSubstr("expected \"# replicas = 1\" or 2"));
  EXPECT_THAT(message("0F0 0B0 1F0 1B0\n2F0 2B0\n"), HasSubstr("3 stages in 2 rows"));
  EXPECT_THAT(message("0F0 0B0 2F0 2B0 3F0 3B0\n1F0 1B0\n"), HasSubstr("rank 0 has more than 2 stages"));
  EXPECT_THAT(message("0F0 0F1 0B0\n"), HasSubstr("stage 0 never does B (or I and W) of micro-batch 1"));
  EXPECT_THAT(message("0F0 0I0\n"), HasSubstr("stage 0 never does W of micro-batch 0"));
  EXPECT_THAT(message("0F0 0W0 0I0\n"), HasSubstr("W0.0 out of turn"));
  EXPECT_THAT(message("0B0 0F0\n"), HasSubstr("B0.0 out of turn"));
  EXPECT_THAT(message("0F0 0B0 0F0\n"), HasSubstr("F0.0 out of turn"));
  // Rank 0 wants to go back before it lets rank 1 go on.
  const absl::Status locks = ParseSchedule("0F0 0B0 0F1 0B1\n1F0 1F1 1B0 1B1\n", "x").status();
  EXPECT_EQ(locks.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(locks.message()), HasSubstr("rank 0 waits to do B0.0, rank 1 waits to do F1.1"));
}

TEST(PipelineLower, OneForwardOneBackward) {
  const LoweredSchedule l = Lower(Make({.name = "1f1b", .ranks = 2, .micro_batches = 2}));
  EXPECT_EQ(DumpLowered(l),
            "0F0 0sendF0>1 0F1 [0sendF1>1 0recvB0<1] 0B0 0recvB1<1 0B1 0reduce update\n"
            "1recvF0<0 1F0 1recvF1<0 1B0 1sendB0>0 1F1 1B1 1sendB1>0 1reduce update\n");
  EXPECT_EQ(l.channels, (std::vector<std::string>{"edge 0->1 activation", "edge 1->0 gradient"}));
  for (const std::string& name : l.channels) EXPECT_TRUE(NamesEdge(name));
  EXPECT_EQ(l.activation_slots, (std::vector<std::vector<int>>{{2, 1}}));
  EXPECT_EQ(l.slots, (std::vector<std::vector<int>>{{2, 2}}));  // the second input comes during the first B
  EXPECT_EQ(l.gradient_slots, (std::vector<std::vector<int>>{{1, 0}}));
}

TEST(PipelineLower, TurnsOfAVAreCopiesAndReplicasReduceTogether) {
  const LoweredSchedule v = Lower(Make({.name = "zbv", .ranks = 1, .micro_batches = 1}));
  EXPECT_EQ(DumpLowered(v), "0F0 0copyF0 1F0 1I0 1copyB0 1W0 1reduce 0I0 0W0 0reduce update\n");
  const LoweredSchedule c = Lower(Make({.name = "chimera", .ranks = 2, .micro_batches = 2}), {.tied = {{0, 1}}});
  EXPECT_EQ(c.reduce_group, (std::vector<int>{0, 0}));
  EXPECT_EQ(DumpLowered(c),
            "0F0 [0sendF0>1 1recvF1<1] 1F1 1B1 [0recvB0<1 1sendB1>1] 0B0 0reduce 1reduce update\n"
            "0F1 [1recvF0<0 0sendF1>0] 1F0 1B0 [1sendB0>0 0recvB1<0] 0B1 0reduce 1reduce update\n");
}

// BitPipe's eager synchronisation: the second chunks are reduced while the first ones still compute.
TEST(PipelineLower, ReductionsComeAsSoonAsTheyCan) {
  const Schedule s = Make({.name = "bitpipe", .ranks = 4, .micro_batches = 4});
  const LoweredSchedule l = Lower(s);
  for (const std::vector<Action>& list : l.actions) {
    const auto first =
        std::find_if(list.begin(), list.end(), [](const Action& a) { return a.kind == Action::kReduce; });
    EXPECT_GE(first->stage, 4);
    EXPECT_GE(std::count_if(first, list.end(), IsBackward), 2);
  }
}

TEST(PipelineLower, ResidentStagesOfZero3) {
  const Schedule s = Make({.name = "breadth-first", .ranks = 1, .chunks = 3, .micro_batches = 2});
  EXPECT_EQ(DumpLowered(Lower(s, {.zero = 3, .resident_stages = 1})).substr(0, 60),
            "0unshard 0F0 0copyF0 0F1 0copyF1 0reshard 1unshard 1F0 1copy");
  // With two, the next stage is gathered beside the last action of the one before.
  EXPECT_THAT(DumpLowered(Lower(s, {.zero = 3, .resident_stages = 2})), HasSubstr("1unshard 0F1"));
  EXPECT_EQ(LowerSchedule(s, UnitStages(s), {.zero = 2, .resident_stages = 1}).status().code(),
            absl::StatusCode::kInvalidArgument);
  const Schedule dual = Make({.name = "dualpipe-v", .ranks = 2, .micro_batches = 4});
  EXPECT_THAT(std::string(LowerSchedule(dual, UnitStages(dual), {.zero = 3, .resident_stages = 1}).status().message()),
              HasSubstr("must be at least 2"));
}

// With a transfer of 0.02 t_F on one stream beside compute: receives by simulated time keep what interleaving gains.
TEST(PipelineLower, ReceivesByTime) {
  const Schedule s = Make({.name = "interleaved", .ranks = 8, .chunks = 4, .micro_batches = 16});
  StageDurations d = UnitStages(s);
  d.latency = 0.02;
  const LoweredSchedule l = LowerSchedule(s, d).value();
  const double ideal = Simulate(s, d)->makespan();
  EXPECT_LT(ideal, 55.5);
  EXPECT_LT(Simulate(s, l, d, Streams::kEveryChannel)->makespan(), ideal * 1.005);
  EXPECT_LT(Simulate(s, l, d, Streams::kCompute)->makespan(), ideal * 1.03);
}

// On ranks that do one thing at a time, with stages that differ.
TEST(PipelineLower, OneStreamLosesLittle) {
  for (const auto& [name, chunks] :
       {std::pair("1f1b", 1), {"interleaved", 2}, {"interleaved", 4}, {"zb-h1", 1}, {"zbv", 2}}) {
    const Schedule s = Make({.name = name, .ranks = 4, .chunks = chunks, .micro_batches = 16});
    StageDurations d = UnitStages(s);
    d.latency = 0.001;
    const auto lost = [&] {
      const LoweredSchedule l = LowerSchedule(s, d).value();
      return Simulate(s, l, d, Streams::kOne)->makespan() / Simulate(s, d)->makespan() - 1;
    };
    EXPECT_LT(lost(), 0.03) << name;
    d.stages.back().forward *= 1.3;
    d.stages.back().input_grad *= 1.3;
    d.stages.back().weight_grad *= 1.3;
    EXPECT_LT(lost(), 0.05) << name;
  }
}

TEST(PipelineLower, ASmallLastMicroBatchTakesLess) {
  const Schedule s = Make({.name = "1f1b", .ranks = 2, .micro_batches = 4});
  StageDurations d = UnitStages(s);
  EXPECT_EQ(Simulate(s, d)->makespan(), 15);
  d.last_micro_batch = 0.5;
  EXPECT_EQ(Simulate(s, d)->makespan(),
            13);  // rank 1 ends 1.5 earlier; on rank 0, B of the third is in the way until 12
  d.last_micro_batch = 0;
  EXPECT_EQ(Simulate(s, d).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(PipelineLower, DurationsOfATimeline) {
  const Schedule s = Make({.name = "zb-h1", .ranks = 2, .micro_batches = 4});
  StageDurations d;
  d.stages = {{.forward = 1, .input_grad = 2, .weight_grad = 3}, {.forward = 4, .input_grad = 5, .weight_grad = 6}};
  const StageDurations got = DurationsOf(*Simulate(s, d), UnitStages(s));
  for (int stage : {0, 1}) {
    EXPECT_DOUBLE_EQ(got.stages[stage].forward, d.stages[stage].forward);
    EXPECT_DOUBLE_EQ(got.stages[stage].input_grad, d.stages[stage].input_grad);
    EXPECT_DOUBLE_EQ(got.stages[stage].weight_grad, d.stages[stage].weight_grad);
  }
  const auto table = ParseDurations("stage,forward,input_grad,weight_grad,reduce\n0,1,2,3,4\n1,5,6,7,8\n");
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ((*table)[1].weight_grad, 7);
  EXPECT_EQ((*table)[1].reduce, 8);
  const std::vector<StageDurations::Stage> all = {{.1, .2, .3, .4, .5, .6, .7}, {1e-7, 2e-7, 3e-7, 0, 0, 0, 1. / 3}};
  const auto again = ParseDurations("# a comment\n" + PrintDurations(all));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(PrintDurations(*again), PrintDurations(all));
  EXPECT_EQ((*again)[0].backward, .6);
  EXPECT_EQ((*again)[0].update, .7);
  const auto message = [](std::string_view csv) { return std::string(ParseDurations(csv).status().message()); };
  EXPECT_THAT(message("stage,forwards\n0,1\n"), HasSubstr("line 1: unknown column \"forwards\""));
  EXPECT_THAT(message("stage,forward\n0,1\n2,1\n"), HasSubstr("line 3: stage 2; expected 1"));
  EXPECT_THAT(message("stage,forward\n0,fast\n"), HasSubstr("forward = \"fast\" is not a number"));
  EXPECT_THAT(message("stage,forward\n0\n"), HasSubstr("1 cells, the header has 2"));
}

TEST(SimulateLowered, UpdatesMeetAndEdgesHaveTheirOwnTimes) {
  const Schedule s = MakeSchedule({.name = "1f1b", .ranks = 2, .micro_batches = 4}).value();
  StageDurations d = StageDurations::Uniform(2, {});
  d.latency = 0.25;
  const LoweredSchedule l = LowerSchedule(s, d).value();
  const auto simulate = [&] { return Simulate(s, l, d, Streams::kEveryChannel).value(); };
  const Timeline plain = simulate();
  d.stages[0].update = 1;
  d.stages[1].update = 3;  // of the rank that is done first
  const Timeline updated = simulate();
  EXPECT_DOUBLE_EQ(updated.makespan(), plain.makespan() + 3);
  EXPECT_DOUBLE_EQ(updated.ranks[1].back().begin, plain.makespan());
  EXPECT_DOUBLE_EQ(BusyTimes(updated)[0], BusyTimes(plain)[0] + 1);
  d.edges.assign(l.edges.size(), 0.25);
  EXPECT_DOUBLE_EQ(simulate().makespan(), updated.makespan());
  d.edges[0] = 1.25;  // the first activation comes later, and so all
  EXPECT_GE(simulate().makespan(), updated.makespan() + 1);
  d.edges.pop_back();
  EXPECT_THAT(std::string(Simulate(s, l, d, Streams::kOne).status().message()), HasSubstr("durations of 1 edges"));
  d.edges = {0, -1};
  EXPECT_THAT(std::string(Simulate(s, l, d, Streams::kOne).status().message()), HasSubstr("over edge 1 takes -1"));
}

// ---- planted faults

class PlantedFault : public ::testing::Test {
 protected:
  // The lowered list after `change`, on which the validator must say `what`.
  template <class Change>
  void Expect(const std::string& what, const Change& change) {
    LoweredSchedule l = good_;
    change(l);
    const absl::Status s = ValidateLowered(schedule_, l, options_);
    EXPECT_EQ(s.code(), absl::StatusCode::kInternal);
    EXPECT_THAT(std::string(s.message()), HasSubstr(what));
  }
  static size_t Find(const std::vector<Action>& list, Action::Kind kind, size_t nth = 0) {
    for (size_t i = 0; i < list.size(); ++i) {
      if (list[i].kind == kind && nth-- == 0) return i;
    }
    ADD_FAILURE() << "no such action";
    return 0;
  }
  static void Erase(std::vector<Action>& list, size_t i) { list.erase(list.begin() + static_cast<int64_t>(i)); }
  static void Move(std::vector<Action>& list, size_t from, size_t to) {
    const Action a = list[from];
    Erase(list, from);
    list.insert(list.begin() + static_cast<int64_t>(to), a);
  }

  const Schedule schedule_ = Make({.name = "interleaved", .ranks = 2, .chunks = 2, .micro_batches = 4});
  const LowerOptions options_{.zero = 3, .resident_stages = 1};
  const LoweredSchedule good_ = Lower(schedule_, options_);
};

TEST_F(PlantedFault, IsFound) {
  EXPECT_EQ(ValidateLowered(schedule_, good_, options_), absl::OkStatus());
  Expect("do not fit", [](LoweredSchedule& l) { l.actions.pop_back(); });
  Expect("the schedule has", [&](LoweredSchedule& l) {
    auto& list = l.actions[0];
    std::swap(list[Find(list, Action::kF, 0)], list[Find(list, Action::kF, 1)]);
  });
  Expect("compute actions are missing", [&](LoweredSchedule& l) {
    auto& list = l.actions[0];
    for (size_t i = list.size(); i-- > 0;) {
      if (IsCompute(list[i])) return Erase(list, i);
    }
  });
  Expect("its input is not there", [&](LoweredSchedule& l) { Erase(l.actions[1], Find(l.actions[1], Action::kRecv)); });
  Expect("not computed yet", [&](LoweredSchedule& l) { Move(l.actions[0], Find(l.actions[0], Action::kSend), 0); });
  Expect("sent twice", [&](LoweredSchedule& l) {
    auto& list = l.actions[0];
    list.insert(list.begin() + static_cast<int64_t>(Find(list, Action::kSend)) + 1, list[Find(list, Action::kSend)]);
  });
  Expect("it arrives twice", [&](LoweredSchedule& l) {
    auto& list = l.actions[1];
    list.insert(list.begin(), list[Find(list, Action::kRecv)]);
  });
  Expect("edge", [&](LoweredSchedule& l) { l.actions[0][Find(l.actions[0], Action::kSend)].edge = 1000; });
  Expect("leads from stage", [&](LoweredSchedule& l) { l.actions[0][Find(l.actions[0], Action::kSend)].stage = 3; });
  Expect("its parameters are sharded",
         [&](LoweredSchedule& l) { Erase(l.actions[0], Find(l.actions[0], Action::kUnshard)); });
  Expect("the most is 1", [&](LoweredSchedule& l) { Erase(l.actions[0], Find(l.actions[0], Action::kReshard)); });
  Expect("is still unsharded", [&](LoweredSchedule& l) {
    auto& list = l.actions[0];
    Erase(list, Find(list, Action::kReshard,
                     static_cast<size_t>(std::count_if(list.begin(), list.end(),
                                                       [](const Action& a) { return a.kind == Action::kReshard; })) -
                         1));
  });
  Expect("reduced already", [&](LoweredSchedule& l) { Move(l.actions[0], Find(l.actions[0], Action::kReduce), 0); });
  Expect("reduced twice", [&](LoweredSchedule& l) {
    auto& list = l.actions[0];
    list.insert(list.end() - 1, list[Find(list, Action::kReduce)]);
  });
  Expect("never reduced", [&](LoweredSchedule& l) { Erase(l.actions[0], Find(l.actions[0], Action::kReduce)); });
  Expect("not the last action", [](LoweredSchedule& l) { l.actions[0].push_back({.kind = Action::kUpdate}); });
  Expect("not an action of a schedule",
         [](LoweredSchedule& l) { l.actions[0].insert(l.actions[0].begin(), {.kind = Action::kGradNorm}); });
  Expect("two micro-batches share one of 1 input slots", [](LoweredSchedule& l) { l.slots[0][0] = 1; });
  Expect("two micro-batches share one of 1 activation slots", [](LoweredSchedule& l) { l.activation_slots[0][0] = 1; });
}

// Each list is sound in itself, but the ranks wait for each other.
TEST(PlantedFaultOfOrder, Locks) {
  const Schedule s = Make({.name = "gpipe", .ranks = 2, .micro_batches = 2});
  LoweredSchedule l = Lower(s);
  ASSERT_EQ(DumpLowered(l),
            "0F0 0sendF0>1 0F1 [0sendF1>1 0recvB0<1] 0B0 0recvB1<1 0B1 0reduce update\n"
            "1recvF0<0 1F0 1recvF1<0 1F1 1B0 1sendB0>0 1B1 1sendB1>0 1reduce update\n");
  std::swap(l.actions[0][4], l.actions[0][6]);  // the gradients in the other order
  std::swap(l.actions[0][5], l.actions[0][7]);
  EXPECT_THAT(std::string(ExecuteRendezvous(l, Grouping::kOneByOne).message()),
              HasSubstr("edge 1->0 gradient: rank 1"));
  l = Lower(s);
  std::swap(l.actions[0][3], l.actions[0][4]);  // wants the first gradient before it sends the second activation
  EXPECT_EQ(std::string(ExecuteRendezvous(l, Grouping::kOneByOne).message()),
            "the ranks lock: rank 0 is in recv 0.0, rank 1 is in recv 1.1");
  EXPECT_THAT(std::string(ValidateLowered(s, l, {}).message()), HasSubstr("the ranks lock"));
  // Issued together, nothing waits; but then the receive comes before what it follows from is sent.
  EXPECT_EQ(ExecuteRendezvous(l, Grouping::kGroups), absl::OkStatus());
}

}  // namespace
}  // namespace strata
