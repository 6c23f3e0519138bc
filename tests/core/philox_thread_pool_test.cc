// Philox against the published vectors; the thread pool runs every tile once.

#include <gtest/gtest.h>
#include <sched.h>

#include <atomic>
#include <thread>

#include "core/base/philox.h"
#include "core/base/thread_pool.h"

namespace strata {
namespace {

TEST(Philox, KnownAnswers) {  // kat_vectors of Random123 1.14, philox4x32 10
  EXPECT_EQ(Philox4x32({0, 0, 0, 0}, {0, 0}), (PhiloxBlock{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
            (PhiloxBlock{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (PhiloxBlock{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, NormalHasMeanZeroAndVarianceOne) {
  double sum = 0, squares = 0;
  constexpr int kDraws = 20000;
  for (int i = 0; i < kDraws; ++i) {
    const double x = PhiloxNormal(Philox(3, 5, i));
    sum += x;
    squares += x * x;
  }
  EXPECT_NEAR(sum / kDraws, 0, 0.03);
  EXPECT_NEAR(squares / kDraws, 1, 0.04);
}

TEST(ThreadPool, RunsEveryTileOnceManyTimes) {
  ThreadPool pool(3);
  for (int64_t tiles : {0, 1, 2, 7, 100}) {
    for (int repeat = 0; repeat < 50; ++repeat) {
      std::vector<std::atomic<int>> runs(tiles);
      pool.Run(tiles, [&](int64_t i) { ++runs[i]; });
      for (const auto& r : runs) ASSERT_EQ(r, 1);
    }
  }
}

TEST(ThreadPool, AvailableCoresFollowTheAffinityMask) {
  int cores = 0;
  std::thread pinned([&] {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
    cores = AvailableCores();
  });
  pinned.join();
  EXPECT_EQ(cores, 1);
}

}  // namespace
}  // namespace strata
