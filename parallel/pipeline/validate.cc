#include "parallel/pipeline/validate.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "parallel/pipeline/internal/slots.h"
#include "parallel/pipeline/rendezvous.h"
#include "parallel/pipeline/simulate.h"

namespace strata {
namespace {

template <class... Args>
absl::Status Bad(const Schedule& s, const absl::FormatSpec<Args...>& format, const Args&... args) {
  return absl::InvalidArgumentError(absl::StrFormat("schedule %s: ", s.name) + absl::StrFormat(format, args...));
}

absl::Status CheckPlacement(const Schedule& s) {
  constexpr int kMaxStages = std::numeric_limits<int16_t>::max() / 4;
  if (s.ranks < 1 || s.chunks < 1 || s.micro_batches < 1 || s.replicas < 1) {
    return Bad(s, "%d ranks, %d chunks, %d micro-batches, %d replicas: all must be positive", s.ranks, s.chunks,
               s.micro_batches, s.replicas);
  }
  if (int64_t{s.ranks} * s.chunks > kMaxStages) return Bad(s, "more than %d stages", kMaxStages);
  if (static_cast<int>(s.compute.size()) != s.ranks) return Bad(s, "%d lists for %d ranks", s.compute.size(), s.ranks);
  if (static_cast<int>(s.rank_of.size()) != s.replicas) {
    return Bad(s, "stages of %d replicas are placed, there are %d", s.rank_of.size(), s.replicas);
  }
  for (int replica = 0; replica < s.replicas; ++replica) {
    if (static_cast<int>(s.rank_of[replica].size()) != s.ranks * s.chunks) {
      return Bad(s, "replica %d has %d stages, not %d ranks x %d chunks", replica, s.rank_of[replica].size(), s.ranks,
                 s.chunks);
    }
    std::vector<int> chunks(s.ranks, 0);
    for (int rank : s.rank_of[replica]) {
      if (rank < 0 || rank >= s.ranks)
        return Bad(s, "a stage of replica %d is on rank %d of %d", replica, rank, s.ranks);
      if (++chunks[rank] > s.chunks) {
        return Bad(s, "rank %d has more than %d stages of replica %d", rank, s.chunks, replica);
      }
    }
  }
  return absl::OkStatus();
}

// Each stage does F and then B, or I and then W, of each micro-batch, once, on its rank.
absl::Status CheckCounts(const Schedule& s) {
  enum State : uint8_t { kNothing, kDoneF, kDoneI, kDone };
  std::vector<State> states(size_t(s.stages()) * s.micro_batches, kNothing);
  for (int r = 0; r < s.ranks; ++r) {
    for (const Action& a : s.compute[r]) {
      if (!IsCompute(a)) return Bad(s, "rank %d: %s is not a compute action", r, ToString(a));
      if (a.stage < 0 || a.stage >= s.stages() || a.micro_batch < 0 || a.micro_batch >= s.micro_batches ||
          a.replica != ReplicaOf(s, a.micro_batch)) {
        return Bad(s,
                   "rank %d: %s of replica %d; there are %d stages and %d micro-batches, and micro-batch i is replica "
                   "i mod %d's",
                   r, ToString(a), a.replica, s.stages(), s.micro_batches, s.replicas);
      }
      if (s.rank_of[a.replica][a.stage] != r) {
        return Bad(s, "rank %d: %s belongs to rank %d", r, ToString(a), s.rank_of[a.replica][a.stage]);
      }
      State& state = states[size_t(a.stage) * s.micro_batches + a.micro_batch];
      const bool fits = a.kind == Action::kF   ? state == kNothing
                        : a.kind == Action::kW ? state == kDoneI
                                               : state == kDoneF;
      if (!fits) {
        return Bad(s, "rank %d: %s out of turn; each micro-batch does F, then B, or I and then W, once on a stage", r,
                   ToString(a));
      }
      state = a.kind == Action::kF ? kDoneF : a.kind == Action::kI ? kDoneI : kDone;
    }
  }
  for (size_t i = 0; i < states.size(); ++i) {
    if (states[i] == kDone) continue;
    constexpr const char* kMissing[] = {"F", "B (or I and W)", "W"};
    return Bad(s, "stage %d never does %s of micro-batch %d", i / s.micro_batches, kMissing[states[i]],
               i % s.micro_batches);
  }
  return absl::OkStatus();
}

absl::Status CheckPairs(const Schedule& s) {
  for (int r = 0; r < s.ranks; ++r) {
    const std::vector<Action>& list = s.compute[r];
    for (size_t i = 0; i < list.size();) {
      const size_t end = GroupEnd(list, i);
      if (list[i].overlap != 0 && end - i != 2) {
        return Bad(s, "rank %d: %s is issued together with %d others; pairs only", r, ToString(list[i]), end - i - 1);
      }
      i = end;
    }
  }
  return absl::OkStatus();
}

template <class... Args>
absl::Status Wrong(int rank, const Action& a, const absl::FormatSpec<Args...>& format, const Args&... args) {
  return absl::InternalError(absl::StrFormat("lowered schedule, rank %d, %s: ", rank, ToString(a)) +
                             absl::StrFormat(format, args...));
}

// One rank's list, walked in order.
class ListCheck {
 public:
  ListCheck(const Schedule& s, const LoweredSchedule& l, const LowerOptions& o, int rank)
      : s_(s), l_(l), o_(o), rank_(rank) {}

  absl::Status Run() {
    const std::vector<Action>& list = l_.actions[rank_];
    for (size_t i = 0; i < list.size(); ++i) {
      const Action& a = list[i];
      if ((a.kind == Action::kUpdate) != (i + 1 == list.size()))
        return Wrong(rank_, a, "the update is not the last action");
      RETURN_IF_ERROR(Check(a));
    }
    if (next_compute_ != s_.compute[rank_].size()) return Wrong(rank_, list.back(), "compute actions are missing");
    if (!whole_.empty()) return Wrong(rank_, list.back(), "stage %d is still unsharded", whole_.begin()->second);
    for (int replica = 0; replica < s_.replicas; ++replica) {
      for (int stage = 0; stage < s_.stages(); ++stage) {
        if (s_.rank_of[replica][stage] == rank_ && !reduced_.contains({replica, stage})) {
          return Wrong(rank_, list.back(), "stage %d of replica %d is never reduced", stage, replica);
        }
      }
    }
    return absl::OkStatus();
  }

 private:
  using Key = std::pair<int, int>;         // replica, stage
  using Item = std::tuple<int, int, int>;  // stage, micro-batch, kind (of an edge, or of an action)
  bool Gathers() const { return o_.zero == 3 && o_.resident_stages > 0; }

  absl::Status Check(const Action& a) {
    switch (a.kind) {
      case Action::kF:
      case Action::kB:
      case Action::kI:
      case Action::kW: return CheckCompute(a);
      case Action::kSend:
      case Action::kRecv:
      case Action::kCopyLocal: return CheckMessage(a);
      case Action::kUnshard:
      case Action::kReshard: return CheckGather(a);
      case Action::kReduce:
        if (!reduced_.insert({a.replica, a.stage}).second) return Wrong(rank_, a, "reduced twice");
        if (s_.rank_of[a.replica][a.stage] != rank_) return Wrong(rank_, a, "of another rank's stage");
        return absl::OkStatus();
      case Action::kUpdate: return absl::OkStatus();
      case Action::kGradNorm: break;
    }
    return Wrong(rank_, a, "not an action of a schedule");
  }

  absl::Status CheckCompute(const Action& a) {
    const std::vector<Action>& order = s_.compute[rank_];
    if (next_compute_ == order.size()) return Wrong(rank_, a, "not in the schedule");
    const Action& want = order[next_compute_++];
    if (a.kind != want.kind || a.stage != want.stage || a.micro_batch != want.micro_batch ||
        a.replica != want.replica) {
      return Wrong(rank_, a, "the schedule has %s here", ToString(want));
    }
    const bool forward = a.kind == Action::kF;
    const bool from_outside = a.kind != Action::kW && (forward ? a.stage > 0 : a.stage < s_.stages() - 1);
    const int edge_kind = forward ? Edge::kActivation : Edge::kGradient;
    if (from_outside && !arrived_.contains({a.stage, a.micro_batch, edge_kind}))
      return Wrong(rank_, a, "its input is not there");
    if (Gathers() && !whole_.contains({a.replica, a.stage})) return Wrong(rank_, a, "its parameters are sharded");
    if (!forward && reduced_.contains({a.replica, a.stage}))
      return Wrong(rank_, a, "its gradients were reduced already");
    computed_.insert({a.stage, a.micro_batch, forward ? Edge::kActivation : Edge::kGradient});
    return absl::OkStatus();
  }

  absl::Status CheckMessage(const Action& a) {
    if (a.edge < 0 || a.edge >= static_cast<int>(l_.edges.size())) return Wrong(rank_, a, "edge %d", a.edge);
    const Edge& e = l_.edges[a.edge];
    const bool receives = a.kind == Action::kRecv, local = a.kind == Action::kCopyLocal;
    const int stage = receives ? e.receiver() : e.stage;
    if (a.replica != e.replica || a.stage != stage || (receives ? e.to : e.from) != rank_ ||
        local != (e.from == e.to)) {
      return Wrong(rank_, a, "edge %d leads from stage %d on rank %d to rank %d", a.edge, e.stage, e.from, e.to);
    }
    if (!receives && !computed_.contains({e.stage, a.micro_batch, e.kind}))
      return Wrong(rank_, a, "it is not computed yet");
    if (!receives && !sent_.insert({e.stage, a.micro_batch, e.kind}).second) return Wrong(rank_, a, "sent twice");
    if ((receives || local) && !arrived_.insert({e.receiver(), a.micro_batch, e.kind}).second) {
      return Wrong(rank_, a, "it arrives twice");
    }
    return absl::OkStatus();
  }

  absl::Status CheckGather(const Action& a) {
    if (!Gathers()) return Wrong(rank_, a, "with parameters that are never sharded");
    const Key key{a.replica, a.stage};
    const bool changed = a.kind == Action::kUnshard ? whole_.insert(key).second : whole_.erase(key) > 0;
    if (!changed) return Wrong(rank_, a, "it is so already");
    if (static_cast<int>(whole_.size()) > o_.resident_stages) {
      return Wrong(rank_, a, "%d stages are unsharded, the most is %d", whole_.size(), o_.resident_stages);
    }
    return absl::OkStatus();
  }

  const Schedule& s_;
  const LoweredSchedule& l_;
  const LowerOptions& o_;
  const int rank_;
  size_t next_compute_ = 0;
  std::set<Key> whole_, reduced_;
  std::set<Item> arrived_, computed_, sent_;
};

absl::Status CheckSlots(const Schedule& s, const LoweredSchedule& l) {
  const SlotUses uses = FindSlotUses(s, l.edges, l.actions);
  struct Kind {
    const char* name;
    const StageUses* uses;
    const std::vector<std::vector<int>>* slots;
  };
  const Kind kinds[] = {{"input", &uses.inputs, &l.slots},
                        {"activation", &uses.activations, &l.activation_slots},
                        {"gradient", &uses.gradients, &l.gradient_slots}};
  for (const Kind& kind : kinds) {
    for (int replica = 0; replica < s.replicas; ++replica) {
      for (int stage = 0; stage < s.stages(); ++stage) {
        const int slots = (*kind.slots)[replica][stage];
        if (SlotsSuffice((*kind.uses)[replica][stage], slots)) continue;
        return absl::InternalError(
            absl::StrFormat("lowered schedule: stage %d of replica %d: two micro-batches share one of %d "
                            "%s slots",
                            stage, replica, slots, kind.name));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status CheckShape(const Schedule& s, const LoweredSchedule& l) {
  const size_t stages = s.stages();
  const auto fits = [&](const std::vector<std::vector<int>>& slots) {
    return static_cast<int>(slots.size()) == s.replicas &&
           std::all_of(slots.begin(), slots.end(), [&](const std::vector<int>& row) { return row.size() == stages; });
  };
  if (static_cast<int>(l.actions.size()) != s.ranks || l.reduce_group.size() != stages || !fits(l.slots) ||
      !fits(l.activation_slots) || !fits(l.gradient_slots)) {
    return absl::InternalError("lowered schedule: its lists do not fit the schedule");
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ValidateSchedule(const Schedule& s) {
  RETURN_IF_ERROR(CheckPlacement(s));
  RETURN_IF_ERROR(CheckCounts(s));
  RETURN_IF_ERROR(CheckPairs(s));
  return Simulate(s, StageDurations::Uniform(s.stages(), {})).status();
}

absl::Status ValidateLowered(const Schedule& s, const LoweredSchedule& l, const LowerOptions& o) {
  RETURN_IF_ERROR(CheckShape(s, l));
  for (int r = 0; r < s.ranks; ++r) RETURN_IF_ERROR(ListCheck(s, l, o, r).Run());
  RETURN_IF_ERROR(CheckSlots(s, l));
  for (Grouping grouping : {Grouping::kOneByOne, Grouping::kGroups}) {
    const absl::Status locks = ExecuteRendezvous(l, grouping);
    if (!locks.ok()) return absl::InternalError("lowered schedule: " + std::string(locks.message()));
  }
  return absl::OkStatus();
}

}  // namespace strata
