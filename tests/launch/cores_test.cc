#include "launch/rendezvous/cores.h"

#include <gtest/gtest.h>
#include <sched.h>

#include "core/base/status.h"
#include "core/base/thread_pool.h"
#include "parallel/comm/thread_world.h"

namespace strata {
namespace {

// Binds the calling thread to the first of the cores that it may use.
void BindToOneCore() {
  cpu_set_t cores, one;
  sched_getaffinity(0, sizeof(cores), &cores);
  CPU_ZERO(&one);
  for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++i) {
    if (CPU_ISSET(i, &cores)) CPU_SET(i, &one);
  }
  sched_setaffinity(0, sizeof(one), &one);
}

TEST(Cores, AreSharedByTheRanksThatMayUseTheSame) {
  const int all = AvailableCores();
  if (all == 1) GTEST_SKIP() << "one core cannot be shared out";
  std::vector<int> cores(3);
  EXPECT_EQ(RunRanks(3,
                     [&](World& world) -> absl::Status {
                       if (world.rank() == 2) BindToOneCore();
                       ASSIGN_OR_RETURN(const auto everyone, world.Connect({"control", {0, 1, 2}}));
                       ASSIGN_OR_RETURN(cores[static_cast<size_t>(world.rank())], CoresOfRank(*everyone));
                       return everyone->Close();
                     }),
            absl::OkStatus());
  EXPECT_EQ(cores, (std::vector<int>{all / 2, all / 2, 1}));
}

}  // namespace
}  // namespace strata
