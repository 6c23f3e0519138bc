// Communicators of a pipeline are connected in rounds that are the same on all ranks, whatever each of them needs.

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/mesh/mesh.h"
#include "core/plan/plan.h"
#include "parallel/comm/thread_world.h"

namespace strata {
namespace {

struct Size {
  int pp, dp, tp;
};

// A ring of edges in both directions and of both kinds, beside data and tensor parallelism. The ranks list them in different
// orders; the first stage has no data-parallel group.
std::vector<Plan> RingPlans(const Size& size) {
  const int ranks = size.pp * size.dp * size.tp, per_stage = size.dp * size.tp;
  std::vector<Plan> plans(ranks);
  for (int rank = 0; rank < ranks; ++rank) {
    const Mesh mesh = *Mesh::Make({{"pp", size.pp}, {"dp", size.dp}, {"tp", size.tp}}, ranks, rank);
    const auto edge = [&](Edge::Kind kind, int from, int to) {
      const Edge e{.kind = kind, .from = (from + ranks) % ranks, .to = (to + ranks) % ranks};
      plans[rank].comms.push_back({ToString(e), {e.from, e.to}});
    };
    for (const Edge::Kind kind : {Edge::kActivation, Edge::kGradient}) {
      for (const int by : {per_stage, -per_stage}) {
        edge(kind, rank, rank + by);
        edge(kind, rank - by, rank);
      }
    }
    if (mesh.Coord(0) > 0) plans[rank].comms.push_back({"dp", mesh.Group(mesh.Find("dp"))});
    plans[rank].comms.push_back({"tp", mesh.Group(mesh.Find("tp"))});
    std::vector<CommSpec>& comms = plans[rank].comms;
    std::rotate(comms.begin(), comms.begin() + mesh.Coord(0) % static_cast<int>(comms.size()), comms.end());
    std::vector<CommSpec> distinct;  // with two stages, next and previous are one rank
    for (const CommSpec& c : comms) {
      if (std::find(distinct.begin(), distinct.end(), c) == distinct.end()) distinct.push_back(c);
    }
    comms = distinct;
  }
  return plans;
}

class CommRounds : public ::testing::TestWithParam<Size> {};
INSTANTIATE_TEST_SUITE_P(Sizes, CommRounds,
                         ::testing::Values(Size{2, 1, 1}, Size{2, 2, 2}, Size{4, 2, 1}, Size{8, 1, 2}, Size{8, 1, 1}),
                         [](const auto& info) {
                           return absl::StrFormat("pp%d_dp%d_tp%d", info.param.pp, info.param.dp, info.param.tp);
                         });

absl::Status Use(Communicator& comm, int rank) {
  const std::vector<int>& ranks = comm.spec().ranks;
  if (comm.spec().name.compare(0, 4, "edge") != 0) {
    const Collective barrier;
    return comm.Issue({&barrier, 1}, Stream{});
  }
  double value = rank == ranks[0] ? ranks[0] * 100 + ranks[1] : -1;
  const Collective call{.kind = rank == ranks[0] ? Collective::kSend : Collective::kRecv,
                        .dtype = DType::kF64,
                        .count = 1,
                        .peer = rank == ranks[0] ? 1 : 0,
                        .in = &value,
                        .out = &value};
  RETURN_IF_ERROR(comm.Issue({&call, 1}, Stream{}));
  if (value == ranks[0] * 100 + ranks[1]) return absl::OkStatus();
  return absl::InternalError(absl::StrFormat("%s brought %f", comm.spec().name, value));
}

TEST_P(CommRounds, EveryRankConnectsWhatItNeeds) {
  std::vector<Plan> plans = RingPlans(GetParam());
  const std::vector<Plan> before = plans;
  AlignCommunicators(plans);
  for (size_t r = 0; r < plans.size(); ++r) {
    EXPECT_EQ(plans[r].comms.size(), plans[0].comms.size());
    for (const CommSpec& c : before[r].comms) EXPECT_EQ(std::count(plans[r].comms.begin(), plans[r].comms.end(), c), 1);
  }
  const absl::Status status = RunRanks(static_cast<int>(plans.size()),
                                       [&](World& world) -> absl::Status {
                                         std::vector<std::unique_ptr<Communicator>> comms;
                                         for (const CommSpec& c : plans[world.rank()].comms) {
                                           ASSIGN_OR_RETURN(comms.emplace_back(), world.Connect(c));
                                         }
                                         std::erase(comms, nullptr);  // rounds without a group for this rank
                                         for (auto& c : comms) RETURN_IF_ERROR(Use(*c, world.rank()));
                                         for (auto& c : comms) RETURN_IF_ERROR(c->Close());
                                         return absl::OkStatus();
                                       },
                                       {std::chrono::seconds(20), nullptr});
  EXPECT_TRUE(status.ok()) << status;
}

// What ranks without a pipeline have had is left as it is.
TEST(CommRounds, EqualListsStayAsTheyAre) {
  std::vector<Plan> plans(4);
  for (int r = 0; r < 4; ++r) plans[r].comms = {{"tp", {r / 2 * 2, r / 2 * 2 + 1}}, {"dp", {r % 2, r % 2 + 2}}};
  const std::vector<Plan> before = plans;
  AlignCommunicators(plans);
  for (int r = 0; r < 4; ++r) EXPECT_EQ(plans[r].comms, before[r].comms);
}

TEST(CommRounds, StepsKeepTheirCommunicator) {
  std::vector<Plan> plans = RingPlans({2, 2, 1});
  for (Plan& p : plans) {
    Segment& s = p.programs.emplace_back().segments.emplace_back();
    for (size_t i = 0; i < p.comms.size(); ++i) {
      s.steps.emplace_back().comm = static_cast<int16_t>(i);
      s.steps.back().scope = p.comms[i].name;
    }
  }
  AlignCommunicators(plans);
  for (const Plan& p : plans) {
    for (const Step& s : p.programs[0].segments[0].steps) EXPECT_EQ(p.comms[s.comm].name, s.scope);
  }
}

}  // namespace
}  // namespace strata
