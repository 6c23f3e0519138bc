#include <algorithm>
#include <deque>
#include <limits>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "parallel/pipeline/simulate.h"

namespace strata {
namespace {

constexpr double kNever = -1;

// What an action waits for on its own rank, as indices of the rank's list.
using Needs = std::vector<std::vector<int>>;

// Follows from the keys: inputs, the computation that is sent, parameters, free slots, complete gradients.
class NeedsOfRank {
 public:
  NeedsOfRank(const Schedule& schedule, const LoweredSchedule& lowered, int rank)
      : s_(schedule), l_(lowered), list_(lowered.actions[rank]) {
    needs_.resize(list_.size());
    for (int i = 0; i < static_cast<int>(list_.size()); ++i) Visit(i);
  }
  Needs Take() && { return std::move(needs_); }

 private:
  using Item = std::tuple<int, int, int>;  // stage, micro-batch, kind of an action, or kArrived + kind of an edge
  static constexpr int kArrived = 100, kStageWide = -1;
  enum StageItem { kLastCompute = 200, kGathered };

  void Need(int i, const Item& item) {
    if (const auto it = last_.find(item); it != last_.end()) needs_[i].push_back(it->second);
  }

  // The end of the micro-batch that had the slot before.
  void NeedSlot(int i, int replica, int stage, int micro_batch, int slots) {
    const int before = micro_batch - slots * s_.replicas;
    if (before < 0) return;
    Need(i, {stage, before, Action::kB});
    Need(i, {stage, before, Action::kW});
    static_cast<void>(replica);
  }

  void Visit(int i) {
    const Action& a = list_[i];
    const int mb = a.micro_batch;
    if (IsCompute(a)) {
      const bool forward = a.kind == Action::kF;
      if (forward) {
        Need(i, {a.stage, mb, kArrived + Edge::kActivation});
        NeedSlot(i, a.replica, a.stage, mb, l_.activation_slots[a.replica][a.stage]);
      } else {
        Need(i, {a.stage, mb, kArrived + Edge::kGradient});
        Need(i, {a.stage, mb, a.kind == Action::kW ? Action::kI : Action::kF});
      }
      Need(i, {a.stage, kStageWide, kGathered});
      last_[{a.stage, mb, a.kind}] = last_[{a.stage, kStageWide, kLastCompute}] = i;
    } else if (a.kind == Action::kUnshard) {
      last_[{a.stage, kStageWide, kGathered}] = i;
    } else if (a.kind == Action::kReshard || a.kind == Action::kReduce) {
      Need(i, {a.stage, kStageWide, kLastCompute});
    } else if (a.kind == Action::kUpdate) {
      for (int k = 0; k < i; ++k) needs_[i].push_back(k);
    } else {
      VisitMessage(i, a);
    }
  }

  void VisitMessage(int i, const Action& a) {
    const Edge& e = l_.edges[a.edge];
    const bool activation = e.kind == Edge::kActivation;
    if (a.kind != Action::kRecv) {
      for (Action::Kind maker : {Action::kF, Action::kB, Action::kI}) {
        if ((maker == Action::kF) == activation) Need(i, {e.stage, a.micro_batch, maker});
      }
    }
    if (a.kind != Action::kSend) {
      const int stage = e.receiver();
      NeedSlot(i, a.replica, stage, a.micro_batch, (activation ? l_.slots : l_.gradient_slots)[a.replica][stage]);
      last_[{stage, a.micro_batch, kArrived + e.kind}] = i;
    }
  }

  const Schedule& s_;
  const LoweredSchedule& l_;
  const std::vector<Action>& list_;
  Needs needs_;
  std::map<Item, int> last_;
};

// Lanes of a rank are lists that each go in order.
class LoweredSimulation {
 public:
  LoweredSimulation(const Schedule& schedule, const LoweredSchedule& lowered, const StageDurations& durations,
                    Streams streams)
      : s_(schedule), l_(lowered), d_(durations), streams_(streams) {
    for (int r = 0; r < s_.ranks; ++r) {
      Rank rank;
      rank.needs = NeedsOfRank(s_, l_, r).Take();
      const std::vector<Action>& list = l_.actions[r];
      std::map<int, int> lanes;
      for (int i = 0; i < static_cast<int>(list.size()); ++i) {
        const auto [it, added] = lanes.insert({LaneOf(list[i]), static_cast<int>(rank.lanes.size())});
        if (added) rank.lanes.emplace_back();
        rank.lanes[it->second].items.push_back(i);
        timeline_.ranks.resize(s_.ranks);
        timeline_.ranks[r].push_back({list[i], kNever, kNever});
      }
      ranks_.push_back(std::move(rank));
    }
  }

  absl::StatusOr<Timeline> Run() && {
    queued_.assign(s_.ranks, true);
    for (int r = 0; r < s_.ranks; ++r) ready_.push_back(r);
    while (!ready_.empty()) {
      const int r = ready_.front();
      ready_.pop_front();
      queued_[r] = false;
      for (bool moved = true; moved;) {
        moved = false;
        for (Lane& lane : ranks_[r].lanes) {
          while (Advance(r, lane)) moved = true;
        }
      }
    }
    for (int r = 0; r < s_.ranks; ++r) {
      for (const Lane& lane : ranks_[r].lanes) {
        if (lane.next == lane.items.size()) continue;
        return absl::FailedPreconditionError(absl::StrFormat("lowered schedule %s locks: rank %d waits to do %s",
                                                             s_.name, r,
                                                             ToString(l_.actions[r][lane.items[lane.next]])));
      }
    }
    return std::move(timeline_);
  }

 private:
  struct Lane {
    std::vector<int> items;
    size_t next = 0;
    double free_at = 0;
  };
  struct Rank {
    Needs needs;
    std::vector<Lane> lanes;
  };
  struct Waiting {  // at the head of its lane, all its needs met
    int rank, index;
    Lane* lane;
    double since;
  };
  struct Meeting {
    std::vector<Waiting> there;
  };

  int LaneOf(const Action& a) const {
    constexpr int kComputeLane = 0, kCollectiveLane = 1, kFirstChannel = 2;
    if (streams_ == Streams::kOne || IsCompute(a) || a.kind == Action::kCopyLocal || a.kind == Action::kUpdate) {
      return kComputeLane;
    }
    if (streams_ == Streams::kCompute || a.edge < 0) return kCollectiveLane;
    return kFirstChannel + l_.channel_of[a.edge];
  }

  // Meetings by what is met for: a message of an edge, a reduction, or the updates.
  std::pair<int, int> MeetingOf(const Action& a) const {
    if (a.kind == Action::kUpdate) return {std::numeric_limits<int>::min(), 0};
    return a.kind == Action::kReduce ? std::pair(-1 - l_.reduce_group[a.stage], 0)
                                     : std::pair(int{a.edge}, a.micro_batch);
  }
  size_t MembersOf(const Action& a) const {
    if (a.kind == Action::kUpdate) return s_.ranks;
    if (a.kind != Action::kReduce) return 2;
    std::vector<int> members;
    for (int stage = 0; stage < s_.stages(); ++stage) {
      if (l_.reduce_group[stage] != l_.reduce_group[a.stage]) continue;
      for (const std::vector<int>& rank_of : s_.rank_of) members.push_back(rank_of[stage]);
    }
    std::sort(members.begin(), members.end());
    return std::unique(members.begin(), members.end()) - members.begin();
  }

  // When the needs of action i are met; kNever if that is not known.
  double NeedsMet(int r, int i) const {
    double at = 0;
    for (int k : ranks_[r].needs[i]) {
      const double end = timeline_.ranks[r][k].end;
      if (end == kNever) return kNever;
      at = std::max(at, end);
    }
    return at;
  }

  void Wake(int r) {
    if (queued_[r]) return;
    queued_[r] = true;
    ready_.push_back(r);
  }

  // Runs what is at the head of the lane.
  bool Advance(int r, Lane& lane) {
    if (lane.next == lane.items.size()) return false;
    const int i = lane.items[lane.next];
    const std::vector<Action>& list = l_.actions[r];
    const Action& a = list[i];
    if (IsCompute(a)) return AdvanceCompute(r, lane, i);
    const double met = NeedsMet(r, i);
    if (met == kNever) return false;
    const double since = std::max(met, lane.free_at);
    if (a.kind == Action::kSend || a.kind == Action::kRecv || a.kind == Action::kReduce || a.kind == Action::kUpdate)
      return Meet({r, i, &lane, since}, a);
    Finish(r, lane, i, since, since + d_.Of(a, s_.micro_batches));
    return true;
  }

  bool AdvanceCompute(int r, Lane& lane, int i) {
    const std::vector<Action>& list = l_.actions[r];
    const size_t end = GroupEnd(list, i);
    double begin = lane.free_at, takes = 0;
    for (size_t k = i; k < end; ++k) {
      const double met = NeedsMet(r, static_cast<int>(k));
      if (met == kNever) return false;
      begin = std::max(begin, met);
      takes += d_.Of(list[k], s_.micro_batches);
    }
    if (end - i > 1) takes *= d_.pair;
    for (size_t k = i; k < end; ++k) Finish(r, lane, static_cast<int>(k), begin, begin + takes);
    return true;
  }

  // True once all are there: then all of them are done.
  bool Meet(const Waiting& w, const Action& a) {
    Meeting& meeting = meetings_[MeetingOf(a)];
    for (const Waiting& other : meeting.there) {
      if (other.rank == w.rank && other.index == w.index) return false;
      if (other.rank == w.rank) return false;  // the rank's second part of one reduction: done with the first
    }
    meeting.there.push_back(w);
    if (meeting.there.size() < MembersOf(a)) return false;
    double begin = 0;
    for (const Waiting& other : meeting.there) begin = std::max(begin, other.since);
    const std::vector<Waiting> all = std::move(meeting.there);
    for (const Waiting& other : all) {
      const double takes = TimeOfMember(a, other.rank);
      Finish(other.rank, *other.lane, other.index, begin, begin + takes);
      FinishRestOfReduction(other, a, begin + takes);
      if (other.rank != w.rank) Wake(other.rank);
    }
    return true;
  }

  double TimeOfMember(const Action& a, int rank) const {
    if (a.kind == Action::kReduce) return d_.Of(a, s_.micro_batches);
    if (a.kind != Action::kUpdate) return d_.TransferOver(a.edge, a.micro_batch, s_.micro_batches);
    double update = 0;
    for (const std::vector<int>& rank_of : s_.rank_of) {
      for (int stage = 0; stage < s_.stages(); ++stage) update += rank_of[stage] == rank ? d_.stages[stage].update : 0;
    }
    return update;
  }

  void FinishRestOfReduction(const Waiting& w, const Action& a, double end) {
    if (a.kind != Action::kReduce) return;
    const std::vector<Action>& list = l_.actions[w.rank];
    while (w.lane->next < w.lane->items.size()) {
      const int i = w.lane->items[w.lane->next];
      if (list[i].kind != Action::kReduce || MeetingOf(list[i]) != MeetingOf(a)) return;
      Finish(w.rank, *w.lane, i, end, end + d_.Of(list[i], s_.micro_batches));
      end = w.lane->free_at;
    }
  }

  void Finish(int r, Lane& lane, int i, double begin, double end) {
    timeline_.ranks[r][i].begin = begin;
    timeline_.ranks[r][i].end = end;
    lane.free_at = end;
    ++lane.next;
  }

  const Schedule& s_;
  const LoweredSchedule& l_;
  const StageDurations& d_;
  const Streams streams_;
  std::vector<Rank> ranks_;
  std::map<std::pair<int, int>, Meeting> meetings_;
  std::deque<int> ready_;
  std::vector<bool> queued_;
  Timeline timeline_;
};

}  // namespace

absl::StatusOr<Timeline> Simulate(const Schedule& schedule, const LoweredSchedule& lowered,
                                  const StageDurations& durations, Streams streams) {
  RETURN_IF_ERROR(CheckDurations(durations, schedule.stages()));
  if (!durations.edges.empty() && durations.edges.size() != lowered.edges.size()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("durations of %d edges for a schedule of %d", durations.edges.size(), lowered.edges.size()));
  }
  return LoweredSimulation(schedule, lowered, durations, streams).Run();
}

}  // namespace strata
