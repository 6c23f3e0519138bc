#include "launch/rendezvous/run_world.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "core/base/status.h"

namespace strata {
namespace {

using std::chrono::milliseconds;

TEST(RunWorld, AProcessAloneRunsEveryRankOnThreads) {
  std::atomic<int> ranks{0};
  EXPECT_EQ(RunWorld({}, 3, milliseconds(10'000),
                     [&](World& world) {
                       ranks += 1 << world.rank();
                       return world.size() == 3 ? absl::OkStatus() : absl::InternalError("size");
                     }),
            absl::OkStatus());
  EXPECT_EQ(ranks, 7);
}

TEST(RunWorld, TheNumberOfProcessesMustBeThatOfRanks) {
  const ProcessPlace place{1, 3, 1, 3, "RANK"};
  const absl::Status status = RunWorld(place, 4, milliseconds(10'000), [](World&) { return absl::OkStatus(); });
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  for (const char* part : {"4 ranks", "3 processes", "RANK=1"}) {
    EXPECT_NE(status.ToString().find(part), std::string::npos) << status;
  }
}

TEST(RunWorldDeathTest, AThreadThatHangsEndsTheProcess) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  const auto body = [](World& world) -> absl::Status {
    ASSIGN_OR_RETURN(auto comm, world.Connect({"dp", {0, 1}}));
    const Collective barrier;
    RETURN_IF_ERROR(comm->Issue({&barrier, 1}, Stream{}));
    while (world.rank() == 1) std::this_thread::sleep_for(milliseconds(100));
    return comm->Issue({&barrier, 1}, Stream{});
  };
  EXPECT_EXIT((void)RunWorld({}, 2, milliseconds(200), body), testing::ExitedWithCode(124),
              "error: rank 0: communicator dp, call 2, barrier: rank 1 did not arrive within 200 ms");
}

}  // namespace
}  // namespace strata
