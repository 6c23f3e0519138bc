// Who is to blame for a collective that does not end on a device, and what the ranks do meanwhile.

#include "parallel/comm/internal/hang_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "core/base/status.h"
#include "parallel/comm/thread_world.h"

namespace strata {
namespace {

using internal::Culprits;
using internal::FindCulprits;
using ::testing::ContainsRegex;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::MatchesRegex;
using ::testing::StartsWith;

// dp {0, 1}, tp {1, 2}: each with the calls that a test says.
struct Job {
  std::shared_ptr<RankLedger> ledger = RankLedger::Make(3);
  CommSpec dp{"dp", {0, 1}}, tp{"tp", {1, 2}};
  CommRecord *dp0, *dp1, *tp1, *tp2;

  Job() {
    for (int r = 0; r < 3; ++r) ledger->Enter(r);
    ledger->activity(1).Set("reading data");
    ledger->activity(2).Set("saving a checkpoint");
    dp0 = ledger->Connect(0, dp);
    dp1 = ledger->Connect(1, dp);
    tp1 = ledger->Connect(1, tp);
    tp2 = ledger->Connect(2, tp);
  }
};
// `begun` and `ended` of the issued ones.
void Calls(CommRecord* r, uint64_t issued, uint64_t begun, uint64_t ended) {
  while (r->issued() < issued) r->Issue();
  r->Progress(begun, ended);
}

TEST(HangReport, ARankThatDidNotIssueTheCall) {
  Job job;
  Calls(job.dp0, 17, 17, 16);
  Calls(job.dp1, 16, 16, 16);
  Calls(job.tp1, 4, 4, 4);
  const Culprits c = FindCulprits(*job.ledger, job.dp, 17, 0);
  EXPECT_THAT(c.ranks, ElementsAre(1));
  EXPECT_THAT(c.why, MatchesRegex("rank 1 has issued 16 calls of dp, and has been reading data for [0-9.]+ s"));
}

TEST(HangReport, ARankThatWaitsItselfIsNotTheOne) {
  Job job;
  Calls(job.dp0, 17, 17, 16);
  Calls(job.dp1, 16, 16, 16);
  Calls(job.tp1, 5, 5, 4);
  Calls(job.tp2, 4, 4, 4);
  const Culprits c = FindCulprits(*job.ledger, job.dp, 17, 0);
  EXPECT_THAT(c.ranks, ElementsAre(2));
  EXPECT_THAT(c.why,
              MatchesRegex("rank 1 has not come to it and waits in call 5 of tp; rank 2 has issued 4 calls of tp, and "
                           "has been saving a checkpoint for [0-9.]+ s"));
}

TEST(HangReport, RanksThatWaitForEachOtherAreBothTold) {
  Job job;
  const CommSpec other{"other", {0, 1}};
  Calls(job.dp0, 1, 1, 0);
  Calls(job.ledger->Connect(1, other), 1, 1, 0);
  job.ledger->Connect(0, other);
  const Culprits c = FindCulprits(*job.ledger, job.dp, 1, 0);
  EXPECT_THAT(c.ranks, ElementsAre(0));
  EXPECT_THAT(c.why,
              StartsWith("rank 1 has not come to it and waits in call 1 of other; rank 0 has issued 0 calls of other"));
}

TEST(HangReport, ADeviceThatDidNotComeToIt) {
  Job job;
  Calls(job.dp0, 17, 17, 16);
  Calls(job.dp1, 18, 16, 16);
  const Culprits c = FindCulprits(*job.ledger, job.dp, 17, 0);
  EXPECT_THAT(c.ranks, ElementsAre(1));
  EXPECT_THAT(c.why, ContainsRegex("rank 1 has issued 18 calls of dp, .*; its device has not come to call 17"));
}

TEST(HangReport, AllAreInIt) {
  Job job;
  Calls(job.dp0, 17, 17, 16);
  Calls(job.dp1, 17, 17, 16);
  const Culprits c = FindCulprits(*job.ledger, job.dp, 17, 0);
  EXPECT_THAT(c.ranks, IsEmpty());
  EXPECT_EQ(c.why, "all its ranks are in it, so the link between them is stuck");
}

TEST(HangReport, ARankOfAnotherMachineIsUnknown) {
  const auto ledger = RankLedger::Make(2);
  ledger->Enter(0);
  const CommSpec dp{"dp", {0, 1}};
  Calls(ledger->Connect(0, dp), 1, 1, 0);
  const Culprits c = FindCulprits(*ledger, dp, 1, 0);
  EXPECT_THAT(c.ranks, ElementsAre(1));
  EXPECT_EQ(c.why, "what rank 1 does is not known here");
  EXPECT_EQ(internal::WhatTheyDo(*ledger, dp, {{1}}), "");
}

TEST(HangReport, ThreadRanksSayWhatTheLateOneDoes) {
  const absl::Status status = RunRanks(2,
                                       [](World& world) -> absl::Status {
                                         ASSIGN_OR_RETURN(const auto dp, world.Connect({"dp", {0, 1}}));
                                         const Collective barrier;
                                         RETURN_IF_ERROR(dp->Issue({&barrier, 1}, Stream{}));
                                         if (world.rank() == 0) return dp->Issue({&barrier, 1}, Stream{});
                                         world.ledger()->activity(1).Set("reading data");
                                         while (dp->Poll().ok()) std::this_thread::yield();
                                         return dp->Poll();
                                       },
                                       {std::chrono::milliseconds(100)});
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  EXPECT_THAT(
      std::string(status.message()),
      ContainsRegex("communicator dp, call 2, barrier: rank 1 did not arrive within 100 ms; rank 1 has issued 1 "
                    "call of dp, and has been reading data for 0.[0-9] s"));
}

}  // namespace
}  // namespace strata
