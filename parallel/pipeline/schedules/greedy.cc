// List scheduling in slots of time, F taking one and B two: a rank that is idle does what is ready, F and B in turn, the
// oldest micro-batch first, and no F that would take it over the cap. Stages zigzag over the ranks; two replicas mirrored.
//
// An F leaves room for one of each deeper stage of its rank, so the cap cannot lock. Of all F that the cap holds up take
// the deepest stage. What is held on its rank by deeper stages passes on, nothing there being held up, and its backward
// comes. Then the rank is full of this stage and of less deep ones; these were let in to fewer, so it is of this stage,
// whose micro-batches pass on likewise.

#include <algorithm>
#include <cmath>
#include <optional>
#include <tuple>
#include <vector>

#include "core/base/check.h"
#include "parallel/pipeline/schedules/generators.h"

namespace strata {
namespace {

constexpr int kTicksF = 1, kTicksB = 2;

class Greedy {
 public:
  Greedy(const ScheduleSpec& spec, Schedule empty)
      : schedule_(std::move(empty)),
        per_replica_(spec.micro_batches / schedule_.replicas),
        cap_(static_cast<int>(std::floor(spec.memory_cap * spec.chunks))),
        stages_(schedule_.stages()),
        held_(spec.ranks),
        idle_at_(spec.ranks),
        last_(spec.ranks, Action::kB) {
    lanes_.resize(schedule_.replicas * stages_);
    for (Lane& lane : lanes_) lane.f_end.reserve(per_replica_), lane.b_end.reserve(per_replica_);
    for (int r = 0; r < spec.ranks; ++r) lists_.push_back(RankList(schedule_, r));
    here_.resize(spec.ranks);
    for (int replica = 0; replica < schedule_.replicas; ++replica) {
      for (int s = 0; s < stages_; ++s) here_[schedule_.rank_of[replica][s]].push_back({replica, s});
    }
    for (std::vector<Place>& places : here_) {  // the deepest first
      std::sort(places.begin(), places.end(), [](const Place& a, const Place& b) { return a.stage > b.stage; });
    }
  }

  Schedule Run() && {
    int64_t left = int64_t{2} * schedule_.micro_batches * stages_;
    for (int64_t now = 0; left > 0; ++now) {
      STRATA_CHECK(now <= int64_t{4} * schedule_.micro_batches * stages_ * (kTicksF + kTicksB));
      for (int r = 0; r < schedule_.ranks; ++r) {
        if (idle_at_[r] <= now && Start(r, now)) --left;
      }
    }
    return std::move(schedule_);
  }

 private:
  struct Place {
    int replica, stage;
  };
  struct Lane {  // of a stage: when its micro-batches were through, in their order
    std::vector<int64_t> f_end, b_end;
  };
  struct Choice {
    Action::Kind kind;
    Place at;
    std::tuple<bool, int, int> rank;  // the smallest is taken
  };
  Lane& LaneOf(int replica, int stage) { return lanes_[replica * stages_ + stage]; }
  static bool Done(const std::vector<int64_t>& end, size_t k, int64_t now) { return k < end.size() && end[k] <= now; }

  bool FReady(const Place& at, int64_t now) {
    const size_t k = LaneOf(at.replica, at.stage).f_end.size();
    if (static_cast<int>(k) >= per_replica_) return false;
    return at.stage == 0 || Done(LaneOf(at.replica, at.stage - 1).f_end, k, now);
  }
  bool BReady(const Place& at, int64_t now) {
    const Lane& lane = LaneOf(at.replica, at.stage);
    const size_t k = lane.b_end.size();
    return Done(lane.f_end, k, now) &&
           (at.stage == stages_ - 1 || Done(LaneOf(at.replica, at.stage + 1).b_end, k, now));
  }

  bool Start(int rank, int64_t now) {
    std::optional<Choice> best;
    const auto consider = [&](Action::Kind kind, const Place& at, size_t ordinal) {
      const Choice c{kind, at, {kind == last_[rank], static_cast<int>(ordinal), -at.stage}};
      if (!best || c.rank < best->rank) best = c;
    };
    for (size_t deeper = 0; deeper < here_[rank].size(); ++deeper) {
      const Place& at = here_[rank][deeper];
      const Lane& lane = LaneOf(at.replica, at.stage);
      if (BReady(at, now)) consider(Action::kB, at, lane.b_end.size() * schedule_.replicas);
      if (held_[rank] < cap_ - static_cast<int>(deeper) && FReady(at, now)) consider(Action::kF, at, lane.f_end.size());
    }
    if (!best) return false;
    Lane& lane = LaneOf(best->at.replica, best->at.stage);
    std::vector<int64_t>& end = best->kind == Action::kF ? lane.f_end : lane.b_end;
    idle_at_[rank] = now + (best->kind == Action::kF ? kTicksF : kTicksB);
    lists_[rank].Add(best->kind, best->at.replica, best->at.stage, static_cast<int>(end.size()));
    end.push_back(idle_at_[rank]);
    held_[rank] += best->kind == Action::kF ? 1 : -1;
    last_[rank] = best->kind;
    return true;
  }

  Schedule schedule_;
  const int per_replica_, cap_, stages_;
  std::vector<Lane> lanes_;
  std::vector<int> held_;  // activations of chunks, [rank]
  std::vector<int64_t> idle_at_;
  std::vector<Action::Kind> last_;
  std::vector<RankList> lists_;
  std::vector<std::vector<Place>> here_;
};

}  // namespace

bool GreedyLegal(const ScheduleSpec& spec) {
  const bool one = spec.replicas == 1;
  return spec.memory_cap >= spec.replicas &&
         (one || (spec.replicas == 2 && spec.ranks % 2 == 0 && spec.micro_batches % 2 == 0));
}

Schedule MakeGreedy(const ScheduleSpec& spec) {
  const std::vector<int> down = ZigzagStages(spec.ranks, spec.chunks);
  std::vector<std::vector<int>> rank_of = {down};
  if (spec.replicas == 2) rank_of.push_back(Mirrored(down, spec.ranks));
  return Greedy(spec, EmptySchedule(spec, std::move(rank_of))).Run();
}

}  // namespace strata
