#pragma once
// When each action of each rank ran: simulated, or measured. What Gantt charts and traces are drawn from.

#include <algorithm>
#include <vector>

#include "core/plan/plan.h"

namespace strata {

struct TimedAction {
  Action action;
  double begin = 0, end = 0;
};

struct Timeline {
  std::vector<std::vector<TimedAction>> ranks;  // in order of the rank's list

  double makespan() const {  // from 0
    double end = 0;
    for (const std::vector<TimedAction>& rank : ranks) {
      for (const TimedAction& a : rank) end = std::max(end, a.end);
    }
    return end;
  }
};

inline bool IsCompute(const Action& a) { return a.kind <= Action::kW; }
inline bool IsBackward(const Action& a) { return a.kind == Action::kB || a.kind == Action::kI; }  // sends a gradient
inline bool Ends(const Action& a) { return a.kind == Action::kB || a.kind == Action::kW; }        // frees activations

// Of what follows: neighbours with equal non-zero `overlap` are one.
inline size_t GroupEnd(const std::vector<Action>& list, size_t first) {
  size_t end = first + 1;
  while (list[first].overlap != 0 && end < list.size() && list[end].overlap == list[first].overlap) ++end;
  return end;
}

// Time during which a rank computes or updates; members of an overlapped pair share their span.
std::vector<double> BusyTimes(const Timeline& timeline);
// 1 - mean busy time / makespan.
double BubbleFraction(const Timeline& timeline);

}  // namespace strata
