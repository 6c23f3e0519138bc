#pragma once
// Offsets by liveness: intervals that overlap in time get disjoint ranges.

#include <cstdint>
#include <span>
#include <vector>

namespace strata {

inline constexpr int64_t kAlignment = 256;
constexpr int64_t AlignUp(int64_t bytes, int64_t to = kAlignment) { return (bytes + to - 1) / to * to; }

struct Interval {
  int64_t bytes = 0;
  int32_t first = 0, last = 0;  // inclusive steps
  int64_t offset = 0;           // result, a multiple of kAlignment
};

// Largest first, each into the smallest gap that holds it among those alive at the same time (best fit); returns the total
// bytes. Deterministic: ties go to the earlier interval.
int64_t PackIntervals(std::span<Interval> intervals);

}  // namespace strata
