// A rank of a pipeline that fails or hangs ends the job, on all ranks, with an error that names the action and the edge.

#include <gtest/gtest.h>

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "parallel/comm/faulty.h"
#include "parallel/comm/thread_world.h"
#include "tests/testing/small_pipeline.h"

namespace strata {
namespace {

using testing::OneForwardOneBackward;
using testing::PlanPipeline;
using testing::RunPipelineRank;
using testing::SmallPipeline;

constexpr int kRanks = 4;

struct Ends {
  absl::Status job;
  std::vector<absl::Status> ranks = std::vector<absl::Status>(kRanks);
};

// 1F1B on four ranks, where one rank's call of one communicator goes wrong.
Ends RunWith(int rank, const CommFault& fault, std::chrono::milliseconds deadline) {
  const SmallPipeline pipeline = OneForwardOneBackward(kRanks, 5);
  const absl::StatusOr<std::vector<Plan>> plans = PlanPipeline(pipeline);
  EXPECT_TRUE(plans.ok()) << plans.status();
  Ends ends;
  ends.job = RunRanks(kRanks,
                      [&](World& plain) -> absl::Status {
                        const bool faulty = plain.rank() == rank;
                        FaultyWorld world(plain, faulty ? std::vector{fault} : std::vector<CommFault>{}, 1);
                        return ends.ranks[plain.rank()] =
                                   RunPipelineRank((*plans)[plain.rank()], pipeline, world).status();
                      },
                      {deadline});
  return ends;
}

bool Says(const absl::Status& status, const std::string& what) {
  return absl::StrContains(std::string(status.message()), what);
}

struct Transfer {
  int rank;
  std::string comm, action;
};

class PipelineFault : public ::testing::TestWithParam<Transfer> {};
INSTANTIATE_TEST_SUITE_P(
    Edges, PipelineFault,
    ::testing::Values(Transfer{0, "edge 0->1 activation", "send 0.2"}, Transfer{1, "edge 0->1 activation", "recv 1.2"},
                      Transfer{2, "edge 2->3 activation", "send 2.2"}, Transfer{2, "edge 2->1 gradient", "send 2.2"},
                      Transfer{3, "edge 3->2 gradient", "send 3.2"}, Transfer{0, "edge 1->0 gradient", "recv 0.2"}));

TEST_P(PipelineFault, ARankThatFailsEndsTheJob) {
  const auto& [rank, comm, action] = GetParam();
  const Ends ends = RunWith(rank, {.kind = CommFault::kError, .comm = comm, .call = 2}, std::chrono::seconds(20));
  const std::string cause = absl::StrFormat("rank %d: train %s over %s: injected fault", rank, action, comm);
  EXPECT_TRUE(Says(ends.job, cause)) << ends.job;
  for (int r = 0; r < kRanks; ++r) {
    EXPECT_FALSE(ends.ranks[r].ok()) << r;
    if (r == rank) continue;
    EXPECT_TRUE(absl::IsUnavailable(ends.ranks[r])) << ends.ranks[r];
    EXPECT_TRUE(Says(ends.ranks[r], cause)) << ends.ranks[r];
  }
}

TEST_P(PipelineFault, ARankThatHangsIsNamedWithActionAndEdge) {
  const auto& [rank, comm, action] = GetParam();
  const Ends ends = RunWith(rank, {.kind = CommFault::kHang, .comm = comm, .call = 2}, std::chrono::milliseconds(300));
  EXPECT_TRUE(absl::IsDeadlineExceeded(ends.job)) << ends.job;
  EXPECT_TRUE(Says(ends.job, absl::StrFormat(": rank %d did not arrive within 300 ms", rank))) << ends.job;
  // Of the rank that gives up: what it was doing, and where.
  EXPECT_TRUE(Says(ends.job, ": train send ") || Says(ends.job, ": train recv ")) << ends.job;
  EXPECT_TRUE(Says(ends.job, " over edge ")) << ends.job;
  for (const absl::Status& s : ends.ranks) EXPECT_FALSE(s.ok());
  // And of the one that hangs: it is told why the job ends, at the action where it was.
  EXPECT_TRUE(Says(ends.ranks[rank], absl::StrFormat("train %s over %s: ", action, comm))) << ends.ranks[rank];
}

}  // namespace
}  // namespace strata
