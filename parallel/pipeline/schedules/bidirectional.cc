// Two replicas of the model, "down" and "up", whose stages lie on the ranks in opposite directions and fill each other's
// bubbles. Stage s of one and stage s of the other have the same parameters on two ranks {r, p - 1 - r}.

#include <algorithm>
#include <tuple>
#include <vector>

#include "parallel/pipeline/schedules/generators.h"

namespace strata {

bool BidirectionalLegal(const ScheduleSpec& spec) {
  return spec.ranks % 2 == 0 && spec.micro_batches % spec.ranks == 0;
}

// Units of p micro-batches, half of them each way. A unit is written down in slots of time, the next one begins 2 p slots
// later; each rank works in order of slots.
Schedule MakeChimera(const ScheduleSpec& spec) {
  const int p = spec.ranks, half = p / 2;
  const std::vector<int> down = LoopStages(p, 1);
  Schedule s = EmptySchedule(spec, {down, Mirrored(down, p)});
  using Slot = std::tuple<int, int, Action::Kind, int, int, int>;  // time, unit, kind, replica, stage, ordinal
  for (int r = 0; r < p; ++r) {
    std::vector<Slot> slots;
    for (int unit = 0; unit < spec.micro_batches / p; ++unit) {
      for (int k = 0; k < half; ++k) {
        const int at = 2 * k + 2 * p * unit, ordinal = unit * half + k, up = p - 1 - r;
        slots.push_back({at + r, unit, Action::kF, 0, r, ordinal});
        slots.push_back({at + 2 * p - 1 - r, unit, Action::kB, 0, r, ordinal});
        slots.push_back({at + up, unit, Action::kF, 1, up, ordinal});
        slots.push_back({at + 2 * p - 1 - up, unit, Action::kB, 1, up, ordinal});
      }
    }
    // Where a unit's backward meets the next one's forward, the older unit goes first.
    std::sort(slots.begin(), slots.end());
    RankList list(s, r);
    for (const auto& [time, unit, kind, replica, stage, ordinal] : slots) list.Add(kind, replica, stage, ordinal);
  }
  return s;
}

namespace {

struct ChunkTurn {
  int replica, stage, ordinal;
};

// The order in which a rank of BitPipe goes through its four chunks: a and b, the first and second stage of a replica
// there. `near` is the replica that reaches the rank first.
struct BitPipeRank {
  int half, lead;  // half = p / 2; lead: turns that the near replica is ahead by
  int near;
  int stage_a[2], stage_b[2];  // [replica]

  ChunkTurn A(int replica, int k) const { return {replica, stage_a[replica], k}; }
  ChunkTurn B(int replica, int k) const { return {replica, stage_b[replica], k}; }

  std::vector<ChunkTurn> Forward(int first) const {
    const int far = 1 - near, rest = half - lead;
    std::vector<ChunkTurn> t;
    const auto add = [&](const ChunkTurn& turn) { t.push_back({turn.replica, turn.stage, turn.ordinal + first}); };
    for (int k = 0; k < lead; ++k) add(A(near, k));
    for (int k = 0; k < rest; ++k) add(A(far, k)), add(A(near, k + lead));
    for (int k = 0; k < lead; ++k) add(A(far, k + rest)), add(B(far, k));
    for (int k = 0; k < rest; ++k) add(B(near, k)), add(B(far, k + lead));
    for (int k = 0; k < lead; ++k) add(B(near, k + rest));
    return t;
  }

  std::vector<ChunkTurn> Backward(int first) const {
    const int far = 1 - near, rest = half - lead;
    std::vector<ChunkTurn> t;
    const auto add = [&](const ChunkTurn& turn) { t.push_back({turn.replica, turn.stage, turn.ordinal + first}); };
    for (int k = 0; k < lead; ++k) add(B(near, k));
    for (int k = 0; k < rest; ++k) add(B(far, k)), add(B(near, k + lead));
    for (int k = 0; k < lead; ++k) add(B(far, k + rest)), add(A(far, k));
    for (int k = 0; k < rest; ++k) add(A(near, k)), add(A(far, k + lead));
    for (int k = 0; k < lead; ++k) add(A(near, k + rest));
    return t;
  }
};

BitPipeRank BitPipeRankOf(int p, int r) {
  const int half = p / 2;
  const bool first_half = r < half;
  return {.half = half,
          .lead = first_half ? half - r : r - half + 1,
          .near = first_half ? 0 : 1,
          .stage_a = {r, p - 1 - r},
          .stage_b = {2 * p - 1 - r, p + r}};
}

// Two lists of turns, taken in the given order.
class Merge {
 public:
  Merge(RankList list, std::vector<ChunkTurn> f, std::vector<ChunkTurn> b)
      : list_(list), f_(std::move(f)), b_(std::move(b)) {}
  void F(int n) { Take(Action::kF, f_, next_f_, n); }
  void B(int n) { Take(Action::kB, b_, next_b_, n); }
  void Alternate(int n) {
    for (int i = 0; i < n; ++i) F(1), B(1);
  }
  void Rest() { B(static_cast<int>(b_.size()) - next_b_); }

 private:
  void Take(Action::Kind kind, const std::vector<ChunkTurn>& turns, int& next, int n) {
    for (; n > 0; --n, ++next) list_.Add(kind, turns[next].replica, turns[next].stage, turns[next].ordinal);
  }
  RankList list_;
  std::vector<ChunkTurn> f_, b_;
  int next_f_ = 0, next_b_ = 0;
};

}  // namespace

// Both replicas in V-shaped stages, the turn of the V being a local copy. Its published bubble, (p - 2) / (3 m + p - 2),
// holds at m = p.
Schedule MakeBitPipe(const ScheduleSpec& spec) {
  const int p = spec.ranks, half = p / 2, units = spec.micro_batches / p;
  const std::vector<int> down = ZigzagStages(p, 2);
  Schedule s = EmptySchedule(spec, {down, Mirrored(down, p)});
  for (int r = 0; r < p; ++r) {
    const BitPipeRank rank = BitPipeRankOf(p, r);
    std::vector<ChunkTurn> f, b;
    for (int unit = 0; unit < units; ++unit) {
      for (const ChunkTurn& t : rank.Forward(unit * half)) f.push_back(t);
      for (const ChunkTurn& t : rank.Backward(unit * half)) b.push_back(t);
    }
    Merge merge(RankList(s, r), std::move(f), std::move(b));
    const int warm_up = 3 * half + std::min(r, p - 1 - r), alternate = 2 * p - warm_up;
    merge.F(warm_up);
    for (int unit = 1; unit < units; ++unit) {
      merge.Alternate(alternate);
      merge.B(warm_up - alternate + 1);
      merge.Alternate(alternate - 1);
      merge.F(warm_up - alternate + 1);
    }
    merge.Alternate(alternate);
    merge.Rest();
  }
  return s;
}

}  // namespace strata
