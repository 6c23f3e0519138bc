// Who is blamed for a hang: the rank that is in no collective, also by a rank that waits for it only through another one.

#include <gtest/gtest.h>

#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "parallel/comm/faulty.h"
#include "parallel/comm/thread_world.h"

namespace strata {
namespace {

using std::chrono::milliseconds;

constexpr Stream kStream{};

absl::Status Barrier(Communicator& comm) {
  const Collective barrier;
  return comm.Issue({&barrier, 1}, kStream);
}

// A step of a dp 2 x tp 2 layout, ranks dp-major: tensor parallelism, tensor parallelism, gradients.
struct Rank {
  std::unique_ptr<Communicator> tp, dp;

  static absl::StatusOr<Rank> Connect(World& world) {
    const int r = world.rank();
    Rank rank;
    ASSIGN_OR_RETURN(rank.tp, world.Connect({"tp", {r / 2 * 2, r / 2 * 2 + 1}}));
    ASSIGN_OR_RETURN(rank.dp, world.Connect({"dp", {r % 2, r % 2 + 2}}));
    return rank;
  }
  absl::Status Step() {
    RETURN_IF_ERROR(Barrier(*tp));
    RETURN_IF_ERROR(Barrier(*tp));
    return Barrier(*dp);
  }
};

bool Says(const absl::Status& status, const std::string& what) {
  return absl::StrContains(std::string(status.message()), what);
}

class HangBlame : public ::testing::TestWithParam<int> {};

TEST_P(HangBlame, NamesTheRankThatHangs) {
  const int hung = GetParam();
  const absl::Status status =
      RunRanks(4,
               [&](World& inner) -> absl::Status {
                 const CommFault hang{CommFault::kHang, "tp", 5, {}};
                 FaultyWorld world(inner, inner.rank() == hung ? std::vector{hang} : std::vector<CommFault>{}, 1);
                 ASSIGN_OR_RETURN(Rank rank, Rank::Connect(world));
                 for (int step = 0; step < 10; ++step) RETURN_IF_ERROR(rank.Step());
                 return absl::OkStatus();
               },
               {milliseconds(100)});
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  EXPECT_TRUE(Says(status, absl::StrFormat(": rank %d did not arrive within 100 ms", hung))) << status;
}

// The rank beside the one that hangs arrives so late that another one, which waits for it, gives up first.
TEST_P(HangBlame, ThroughARankThatWaitsToo) {
  const int hung = GetParam(), beside = hung ^ 1, first = beside ^ 2;
  const absl::Status status = RunRanks(4,
                                       [&](World& world) -> absl::Status {
                                         ASSIGN_OR_RETURN(Rank rank, Rank::Connect(world));
                                         if (world.rank() == hung) {
                                           while (rank.tp->Poll().ok()) std::this_thread::sleep_for(milliseconds(1));
                                           return rank.tp->Poll();
                                         }
                                         if (world.rank() == first) return Barrier(*rank.dp);
                                         std::this_thread::sleep_for(milliseconds(250));
                                         return Barrier(world.rank() == beside ? *rank.tp : *rank.dp);
                                       },
                                       {milliseconds(500)});
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  EXPECT_TRUE(Says(status, absl::StrFormat("rank %d: communicator tp, call 1, barrier: rank %d did not arrive within "
                                           "500 ms; rank %d waits for rank %d in communicator dp, call 1, barrier",
                                           first, hung, first, beside)))
      << status;
}

INSTANTIATE_TEST_SUITE_P(Ranks, HangBlame, ::testing::Range(0, 4));

TEST(HangBlame, RanksThatWaitForEachOtherAreAllTold) {
  const absl::Status status = RunRanks(2,
                                       [&](World& world) -> absl::Status {
                                         ASSIGN_OR_RETURN(const auto a, world.Connect({"a", {0, 1}}));
                                         ASSIGN_OR_RETURN(const auto b, world.Connect({"b", {0, 1}}));
                                         if (world.rank() == 1) std::this_thread::sleep_for(milliseconds(250));
                                         return Barrier(world.rank() == 0 ? *a : *b);
                                       },
                                       {milliseconds(500)});
  EXPECT_TRUE(Says(status,
                   "communicator a, call 1, barrier: rank 1 did not arrive within 500 ms; rank 1 waits for rank 0 in "
                   "communicator b, call 1, barrier"))
      << status;
}

TEST(HangBlame, ThroughAReceive) {
  const absl::Status status = RunRanks(3,
                                       [&](World& world) -> absl::Status {
                                         ASSIGN_OR_RETURN(const auto chain, world.Connect({"chain", {0, 1, 2}}));
                                         float x = 0;
                                         const int r = world.rank();
                                         const Collective receive{Collective::kRecv, {}, DType::kF32, 1, r + 1, &x, &x};
                                         if (r == 1) std::this_thread::sleep_for(milliseconds(250));
                                         if (r < 2) return chain->Issue({&receive, 1}, kStream);
                                         while (chain->Poll().ok()) std::this_thread::sleep_for(milliseconds(1));
                                         return chain->Poll();
                                       },
                                       {milliseconds(500)});
  EXPECT_TRUE(Says(status,
                   "communicator chain, recv of 1 f32: rank 2 did not arrive within 500 ms; rank 0 waits for "
                   "rank 1 in communicator chain, recv of 1 f32"))
      << status;
}

}  // namespace
}  // namespace strata
