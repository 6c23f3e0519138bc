// Backward split into I, on which the stage before waits, and W, on which nobody does: W fills what was a bubble.

#include <algorithm>
#include <deque>
#include <utility>

#include "parallel/pipeline/schedules/generators.h"

namespace strata {

// 1F1B with I in place of B; rank r is r W behind. Bubble (p - 1)(t_F + t_I - t_W), peak p on every rank.
Schedule MakeZbH1(const ScheduleSpec& spec) {
  const int p = spec.ranks, m = spec.micro_batches;
  Schedule s = EmptySchedule(spec, {LoopStages(p, 1)});
  for (int r = 0; r < p; ++r) {
    RankList list(s, r);
    const int warm_up = std::min(p - 1 - r, m);
    int next_w = 0;
    for (int i = 0; i < warm_up; ++i) list.Add(Action::kF, 0, r, i);
    for (int i = 0; i < m; ++i) {
      if (warm_up + i < m) list.Add(Action::kF, 0, r, warm_up + i);
      list.Add(Action::kI, 0, r, i);
      if (i >= r) list.Add(Action::kW, 0, r, next_w++);
    }
    while (next_w < m) list.Add(Action::kW, 0, r, next_w++);
  }
  return s;
}

namespace {

// One rank of ZB-V: stage 0 is the descending arm of the V, stage 1 the ascending. Counts what each has done.
class ZbVRank {
 public:
  ZbVRank(RankList list, int near_stage, int far_stage, int micro_batches)
      : list_(list), stage_{near_stage, far_stage}, m_(micro_batches) {}
  void F(int arm) { Add(Action::kF, arm, f_[arm]); }
  void I(int arm) { Add(Action::kI, arm, i_[arm]); }
  void W(int arm) { Add(Action::kW, arm, w_[arm]); }
  int f(int arm) const { return f_[arm]; }
  bool PendingW(int arm) const { return w_[arm] < i_[arm]; }

 private:
  // The order is made for at least 2 p - 1 micro-batches; those that there are not are left out.
  void Add(Action::Kind kind, int arm, int& next) {
    if (next < m_) list_.Add(kind, 0, stage_[arm], next);
    ++next;
  }
  RankList list_;
  int stage_[2];
  int m_;
  int f_[2] = {}, i_[2] = {}, w_[2] = {};
};

}  // namespace

// Rank r has stages r and 2 p - 1 - r. No bubble but at the ends when t_F = t_I = t_W; peak p.
Schedule MakeZbV(const ScheduleSpec& spec) {
  const int p = spec.ranks, n = std::max(2 * p - 1, spec.micro_batches);
  Schedule s = EmptySchedule(spec, {ZigzagStages(p, 2)});
  for (int r = 0; r < p; ++r) {
    ZbVRank rank(RankList(s, r), r, 2 * p - 1 - r, spec.micro_batches);
    for (int k = 0; k < 2 * (p - r) - 1; ++k) rank.F(0);
    for (int k = 0; k < r; ++k) rank.F(1), rank.F(0);
    for (int k = 0; k < p - r; ++k) rank.F(1), rank.I(1), rank.W(1);
    while (rank.f(1) < rank.f(0) || rank.f(0) < n) {
      if (rank.f(0) < n) rank.F(0);
      rank.I(0), rank.W(0), rank.F(1), rank.I(1), rank.W(1);
    }
    for (int k = 0; k < r; ++k) rank.I(0), rank.I(1);
    for (int k = 0; k < p - r; ++k) rank.I(0), rank.W(0);
    while (rank.PendingW(1)) rank.W(1);
    while (rank.PendingW(0)) rank.W(0);
  }
  return s;
}

}  // namespace strata
