// Ranks as processes under mpirun: their collectives have the bits of thread ranks, and their failures the same words.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "parallel/comm/thread_world.h"
#include "tests/mpi/collectives.h"
#include "tests/mpi/spawn.h"
#include "tests/testing/small_pipeline.h"

namespace strata::testing {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::Not;

struct Outcome {
  int code = -1;
  std::string output;
};
Outcome Mpirun(int ranks, const char* scenario) {
  Process mpirun({"mpirun", "-n", std::to_string(ranks), STRATA_MPI_WORLD_PROGRAM, scenario});
  const int code = mpirun.Wait();
  return {code, mpirun.Output()};
}

class MpiWorldTest : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Ranks, MpiWorldTest, ::testing::Values(2, 3, 4));

TEST_P(MpiWorldTest, EveryCollectiveHasTheBitsOfThreadRanks) {
  std::vector<std::string> want(static_cast<size_t>(GetParam()));
  ASSERT_EQ(RunRanks(GetParam(),
                     [&](World& world) -> absl::Status {
                       ASSIGN_OR_RETURN(const uint64_t bits, BitsOfCollectives(world));
                       want[static_cast<size_t>(world.rank())] = absl::StrFormat("%d got %016x", world.rank(), bits);
                       return absl::OkStatus();
                     }),
            absl::OkStatus());
  const Outcome o = Mpirun(GetParam(), "collectives");
  EXPECT_EQ(o.code, 0) << o.output;
  for (const std::string& line : want) EXPECT_THAT(o.output, HasSubstr(line));
}

TEST_P(MpiWorldTest, APipelineHasTheBitsOfThreadRanks) {
  const SmallPipeline pipeline = OneForwardOneBackward(GetParam(), 5);
  const absl::StatusOr<std::vector<Plan>> plans = PlanPipeline(pipeline);
  ASSERT_TRUE(plans.ok()) << plans.status();
  std::vector<std::string> want(plans->size());
  ASSERT_EQ(RunRanks(pipeline.ranks,
                     [&](World& world) -> absl::Status {
                       ASSIGN_OR_RETURN(const PipelineRun run,
                                        RunPipelineRank((*plans)[world.rank()], pipeline, world));
                       want[world.rank()] = absl::StrFormat("%d got %s", world.rank(), Bits(run));
                       return absl::OkStatus();
                     }),
            absl::OkStatus());
  const Outcome o = Mpirun(pipeline.ranks, "pipeline");
  EXPECT_EQ(o.code, 0) << o.output;
  for (const std::string& line : want) EXPECT_THAT(o.output, HasSubstr(line));
}

TEST(MpiWorld, ARankThatHangsOrFailsInAPipelineIsNamedWithActionAndEdge) {
  const Outcome hung = Mpirun(4, "hung-pipeline");
  EXPECT_NE(hung.code, 0);
  EXPECT_THAT(hung.output, HasSubstr("rank 1 did not arrive within 3000 ms"));
  EXPECT_THAT(hung.output, HasSubstr("rank 1: train send 1.2 over edge 1->2 activation: "));
  EXPECT_THAT(hung.output,
              AnyOf(HasSubstr("train recv 2.2 over edge 1->2 activation: communicator edge 1->2 activation"),
                    HasSubstr("over edge 1->0 gradient: communicator edge 1->0 gradient"),
                    HasSubstr("over edge 0->1 activation: communicator edge 0->1 activation")));
  const Outcome failed = Mpirun(4, "failed-pipeline");
  EXPECT_NE(failed.code, 0);
  EXPECT_THAT(failed.output, HasSubstr("rank 1: train send 1.2 over edge 1->2 activation: injected fault"));
}

TEST(MpiWorld, IssueDoesNotAllocate) {
  const Outcome o = Mpirun(3, "no-allocation");
  EXPECT_EQ(o.code, 0) << o.output;
}

TEST(MpiWorld, ARankThatNeverArrivesIsNamedByEveryone) {
  const Outcome o = Mpirun(4, "hang");
  EXPECT_NE(o.code, 0);
  EXPECT_THAT(o.output, HasSubstr("DEADLINE_EXCEEDED"));
  // Rank 0 waits for it in dp's call 2, rank 3 in tp's call 1: whoever gives up first says so.
  const std::string late = "all-reduce sum of 8 f32: rank 2 did not arrive within 3000 ms";
  EXPECT_THAT(o.output,
              AnyOf(HasSubstr("communicator dp, call 2, " + late), HasSubstr("communicator tp, call 1, " + late)));
  for (const char* innocent : {"rank 0 did not", "rank 1 did not", "rank 3 did not"}) {
    EXPECT_THAT(o.output, Not(HasSubstr(innocent)));
  }
  // Rank 1 waits for rank 0, which waits for rank 2: it hears of the cause, or names the way to it.
  for (const char* rank : {"0 says", "1 says", "3 says"}) EXPECT_THAT(o.output, HasSubstr(rank));
}

TEST(MpiWorld, AnErrorWakesEveryoneWithItsCause) {
  const Outcome o = Mpirun(4, "error");
  EXPECT_NE(o.code, 0);
  EXPECT_THAT(o.output, HasSubstr("2 says DATA_LOSS: rank 2: bad shard"));
  for (const char* rank : {"0", "1", "3"}) {
    EXPECT_THAT(o.output, HasSubstr(std::string(rank) + " says UNAVAILABLE: rank " + rank + ": rank 2: bad shard"));
  }
}

TEST(MpiWorld, TheFirstAbortStays) {
  const Outcome o = Mpirun(4, "abort");
  for (const char* rank : {"0", "1", "2", "3"}) {
    EXPECT_THAT(o.output, HasSubstr(std::string(rank) + " says UNAVAILABLE: rank " + rank + ": first"));
  }
}

TEST(MpiWorld, JobsStartAndStop) {
  for (int i = 0; i < 6; ++i) {
    const Outcome o = Mpirun(2 + i % 3, i % 3 == 2 ? "abort" : "starts");
    EXPECT_EQ(o.code == 0, i % 3 != 2) << i << ": " << o.output;
  }
}

TEST(MpiWorld, DifferentCallsAreAnErrorThatNamesBoth) {
  EXPECT_THAT(
      Mpirun(2, "mismatch").output,
      HasSubstr("call 1 differs: rank 0 issues all-reduce sum of 4 f32, rank 1 issues all-reduce sum of 3 f32"));
  EXPECT_THAT(Mpirun(2, "pair").output, HasSubstr("rank 0 issues send of 5 f32, rank 1 issues recv of 4 f32"));
  EXPECT_THAT(Mpirun(2, "connect").output, HasSubstr("ranks connect different groups: dp of ranks 0, 1, and tp of"));
}

}  // namespace
}  // namespace strata::testing
