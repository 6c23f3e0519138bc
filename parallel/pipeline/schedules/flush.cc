// GPipe and 1F1B: one stage a rank, a bubble of (p - 1)(t_F + t_B). GPipe holds m micro-batches, 1F1B min(m, p - r).

#include <algorithm>

#include "parallel/pipeline/schedules/generators.h"

namespace strata {

Schedule MakeGpipe(const ScheduleSpec& spec) {
  Schedule s = EmptySchedule(spec, {LoopStages(spec.ranks, 1)});
  for (int r = 0; r < spec.ranks; ++r) {
    RankList list(s, r);
    for (int i = 0; i < spec.micro_batches; ++i) list.Add(Action::kF, 0, r, i);
    for (int i = 0; i < spec.micro_batches; ++i) list.Add(Action::kB, 0, r, i);
  }
  return s;
}

Schedule Make1F1B(const ScheduleSpec& spec) {
  Schedule s = EmptySchedule(spec, {LoopStages(spec.ranks, 1)});
  const int m = spec.micro_batches;
  for (int r = 0; r < spec.ranks; ++r) {
    RankList list(s, r);
    const int warm_up = std::min(spec.ranks - 1 - r, m);
    for (int i = 0; i < warm_up; ++i) list.Add(Action::kF, 0, r, i);
    for (int i = warm_up; i < m; ++i) {
      list.Add(Action::kF, 0, r, i);
      list.Add(Action::kB, 0, r, i - warm_up);
    }
    for (int i = m - warm_up; i < m; ++i) list.Add(Action::kB, 0, r, i);
  }
  return s;
}

}  // namespace strata
