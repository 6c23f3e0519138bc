#include "parallel/pipeline/internal/meeting.h"

#include <algorithm>
#include <cmath>

namespace strata {
namespace {

constexpr int kCandidates = 64;  // ends of compute to look at on each rank

}  // namespace

MeetingTimes::MeetingTimes(const Timeline& compute) : tolerance_(1e-9 * compute.makespan()) {
  for (const std::vector<TimedAction>& list : compute.ranks) {
    Spans spans;
    for (const TimedAction& t : list) {
      if (!spans.begin.empty() && spans.begin.back() == t.begin) continue;  // the second of a pair
      spans.begin.push_back(t.begin);
      spans.end.push_back(t.end);
    }
    ranks_.push_back(std::move(spans));
  }
}

double MeetingTimes::Left(const Spans& rank, double time) const {
  const auto after = std::lower_bound(rank.begin.begin(), rank.begin.end(), time - tolerance_) - rank.begin.begin();
  if (after == 0) return 0;
  const double left = rank.end[after - 1] - time;
  return left > tolerance_ ? left : 0;
}

double MeetingTimes::Between(int from, int to, double earliest, double latest) const {
  std::vector<double> times = {earliest, latest};
  for (int rank : {from, to}) {
    const std::vector<double>& end = ranks_[rank].end;
    auto it = std::upper_bound(end.begin(), end.end(), earliest);
    for (int n = 0; n < kCandidates && it != end.end() && *it < latest; ++n, ++it) times.push_back(*it);
  }
  std::sort(times.begin(), times.end());
  double best = earliest, least = -1;
  for (double time : times) {
    const double wait = std::abs(Left(ranks_[from], time) - Left(ranks_[to], time));
    if (least >= 0 && wait >= least - tolerance_) continue;
    best = time;
    least = wait;
    if (least <= tolerance_) break;
  }
  return best;
}

}  // namespace strata
