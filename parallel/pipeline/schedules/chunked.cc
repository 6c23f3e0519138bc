// Several chunks of the model a rank, chunk c of rank r being stage c p + r: the bubble of 1F1B divided by v.

#include <algorithm>
#include <utility>
#include <vector>

#include "parallel/pipeline/schedules/generators.h"

namespace strata {
namespace {

int Group(const ScheduleSpec& spec) { return spec.group > 0 ? spec.group : spec.ranks; }

}  // namespace

bool InterleavedLegal(const ScheduleSpec& spec) {
  const int group = Group(spec), rest = spec.micro_batches % std::max(group, 1);
  return spec.ranks <= group && group <= spec.micro_batches && (rest == 0 || rest >= spec.ranks);
}

// Groups of micro-batches go through all chunks, depth-first. Rank r is ahead by w forward chunks, then alternates.
Schedule MakeInterleaved(const ScheduleSpec& spec) {
  const int p = spec.ranks, v = spec.chunks, m = spec.micro_batches, group = Group(spec);
  std::vector<std::pair<int, int>> turns;  // (micro-batch, chunk)
  for (int first = 0; first < m; first += group) {
    for (int c = 0; c < v; ++c) {
      for (int i = first; i < std::min(first + group, m); ++i) turns.push_back({i, c});
    }
  }
  Schedule s = EmptySchedule(spec, {LoopStages(p, v)});
  for (int r = 0; r < p; ++r) {
    RankList list(s, r);
    const auto f = [&](int k) { list.Add(Action::kF, 0, turns[k].second * p + r, turns[k].first); };
    const auto b = [&](int k) { list.Add(Action::kB, 0, (v - 1 - turns[k].second) * p + r, turns[k].first); };
    const int warm_up = std::min(2 * (p - 1 - r) + (v - 1) * group, m * v);
    for (int k = 0; k < warm_up; ++k) f(k);
    for (int k = warm_up; k < m * v; ++k) {
      f(k);
      b(k - warm_up);
    }
    for (int k = m * v - warm_up; k < m * v; ++k) b(k);
  }
  return s;
}

// All micro-batches go through a chunk before any goes through the next: each stage's parameters are needed twice a step,
// its gradients complete one stage after the other. Holds m micro-batches.
Schedule MakeBreadthFirst(const ScheduleSpec& spec) {
  const int p = spec.ranks, v = spec.chunks, m = spec.micro_batches;
  Schedule s = EmptySchedule(spec, {LoopStages(p, v)});
  for (int r = 0; r < p; ++r) {
    RankList list(s, r);
    for (int c = 0; c < v; ++c) {
      for (int i = 0; i < m; ++i) list.Add(Action::kF, 0, c * p + r, i);
    }
    for (int c = v - 1; c >= 0; --c) {
      for (int i = 0; i < m; ++i) list.Add(Action::kB, 0, c * p + r, i);
    }
  }
  return s;
}

}  // namespace strata
