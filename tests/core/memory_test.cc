#include "core/plan/memory.h"

#include <gtest/gtest.h>

#include "core/base/philox.h"

namespace strata {
namespace {

bool Disjoint(const std::vector<Interval>& intervals) {
  for (size_t i = 0; i < intervals.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      const Interval &a = intervals[i], &b = intervals[j];
      const bool together = a.first <= b.last && b.first <= a.last;
      const bool overlap = a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes;
      if (together && overlap) return false;
    }
  }
  return true;
}

TEST(PackIntervals, ReusesWhatIsDead) {
  std::vector<Interval> v = {{1000, 0, 1}, {1000, 2, 3}, {256, 1, 2}};
  EXPECT_EQ(PackIntervals(v), 1024 + 256);
  EXPECT_EQ(v[0].offset, v[1].offset);
  EXPECT_TRUE(Disjoint(v));
}

TEST(PackIntervals, RandomIntervalsNeverOverlapAndStayNearTheLowerBound) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    std::vector<Interval> v;
    std::vector<int64_t> alive(64, 0);
    for (uint64_t i = 0; i < 80; ++i) {
      const PhiloxBlock r = Philox(seed, 1, i);
      const int first = static_cast<int>(r[0] % 60), last = std::min(63, first + static_cast<int>(r[1] % 12));
      v.push_back({static_cast<int64_t>(r[2] % 10000 + 1), first, last});
      for (int t = first; t <= last; ++t) alive[t] += AlignUp(v.back().bytes);
    }
    const int64_t total = PackIntervals(v), bound = *std::max_element(alive.begin(), alive.end());
    EXPECT_TRUE(Disjoint(v));
    EXPECT_GE(total, bound);
    EXPECT_LE(total, bound * 3 / 2) << seed;
    for (const Interval& x : v) EXPECT_EQ(x.offset % kAlignment, 0);
  }
}

}  // namespace
}  // namespace strata
