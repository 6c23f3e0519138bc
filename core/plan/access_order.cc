#include "core/plan/access_order.h"

#include <algorithm>

namespace strata {

void AccessOrder::SplitAt(int64_t address) {
  auto it = ranges_.upper_bound(address);
  if (it == ranges_.begin()) return;
  --it;
  if (it->first == address || it->second.end <= address) return;
  Range right = it->second;
  it->second.end = address;
  ranges_.emplace(address, std::move(right));
}

template <typename Visit>
void AccessOrder::Cover(int64_t begin, int64_t end, Visit visit) {
  if (begin >= end) return;
  SplitAt(begin);
  SplitAt(end);
  auto it = ranges_.lower_bound(begin);
  for (int64_t at = begin; at < end; ++it) {
    if (it == ranges_.end() || it->first > at) {
      const int64_t gap_end = it == ranges_.end() ? end : std::min(end, it->first);
      it = ranges_.emplace_hint(it, at, Range{.end = gap_end});
    }
    visit(it->second);
    at = it->second.end;
  }
}

void AccessOrder::Read(int item, int64_t begin, int64_t end, std::vector<After>& after) {
  Cover(begin, end, [&](Range& r) {
    if (r.writer >= 0 && r.writer != item) after.push_back({r.writer, true});
    if (r.readers.empty() || r.readers.back() != item) r.readers.push_back(item);
  });
}

void AccessOrder::Write(int item, int64_t begin, int64_t end, std::vector<After>& after) {
  Cover(begin, end, [&](Range& r) {
    if (r.writer >= 0 && r.writer != item) after.push_back({r.writer, false});
    for (int reader : r.readers) {
      if (reader != item) after.push_back({reader, false});
    }
    r.writer = item;
    r.readers.clear();
  });
}

}  // namespace strata
