#include "core/plan/memory.h"

#include <algorithm>
#include <numeric>

namespace strata {

int64_t PackIntervals(std::span<Interval> intervals) {
  std::vector<int> order(intervals.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return intervals[a].bytes > intervals[b].bytes; });
  std::vector<int> placed;  // by offset
  int64_t total = 0;
  for (int i : order) {
    Interval& x = intervals[i];
    const int64_t need = AlignUp(x.bytes);
    int64_t end = 0, best = -1, best_gap = 0;
    for (int j : placed) {
      const Interval& y = intervals[j];
      if (y.first > x.last || y.last < x.first) continue;
      const int64_t gap = y.offset - end;
      if (gap >= need && (best < 0 || gap < best_gap)) {
        best = end;
        best_gap = gap;
      }
      end = std::max(end, y.offset + AlignUp(y.bytes));
    }
    x.offset = best >= 0 ? best : end;
    total = std::max(total, x.offset + need);
    const auto at = std::upper_bound(placed.begin(), placed.end(), x.offset,
                                     [&](int64_t offset, int j) { return offset < intervals[j].offset; });
    placed.insert(at, i);
  }
  return total;
}

}  // namespace strata
