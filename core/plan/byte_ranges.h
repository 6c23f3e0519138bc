#pragma once
// Ranges of addresses, each with what is known of all of its bytes.

#include <algorithm>
#include <cstdint>
#include <map>
#include <utility>

namespace strata {

template <typename T>
class ByteRanges {
 public:
  // Calls visit(T&) with ranges that cover exactly [begin, end), in order; those at its borders are split, and what was in none
  // is a new T.
  template <typename Visit>
  void Cover(int64_t begin, int64_t end, Visit visit) {
    if (begin >= end) return;
    SplitAt(begin);
    SplitAt(end);
    auto it = ranges_.lower_bound(begin);
    for (int64_t at = begin; at < end; ++it) {
      if (it == ranges_.end() || it->first > at) {
        const int64_t gap_end = it == ranges_.end() ? end : std::min(end, it->first);
        it = ranges_.emplace_hint(it, at, Range{gap_end, T{}});
      }
      visit(it->second.known);
      at = it->second.end;
    }
  }

 private:
  struct Range {
    int64_t end;
    T known;
  };
  void SplitAt(int64_t address) {
    auto it = ranges_.upper_bound(address);
    if (it == ranges_.begin()) return;
    --it;
    if (it->first == address || it->second.end <= address) return;
    Range upper = it->second;
    it->second.end = address;
    ranges_.emplace(address, std::move(upper));
  }

  std::map<int64_t, Range> ranges_;  // by begin
};

}  // namespace strata
