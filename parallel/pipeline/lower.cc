#include "parallel/pipeline/lower.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "parallel/pipeline/internal/meeting.h"
#include "parallel/pipeline/internal/residency.h"
#include "parallel/pipeline/internal/slots.h"
#include "parallel/pipeline/simulate.h"
#include "parallel/pipeline/validate.h"

namespace strata {
namespace {

constexpr int kOverlapIds = 32000;  // they fit int16; neighbours differ

// Something that one or more ranks do, at its place in the global order. At equal times communication comes before
// compute: what is computed takes time, so what it sends comes later, and what needs it not earlier.
struct Event {
  enum Class : uint8_t { kTransfer, kReduction, kComputation };
  double time = 0;
  Class what = kTransfer;
  int stage = 0, micro_batch = 0;  // ties: the earlier stage first
  int rank = 0;
  size_t index = 0;  // kComputation: of its first action in the timeline; kTransfer: the edge

  auto Order() const { return std::tuple(time, what, stage, micro_batch, rank, index); }
};

class Lowering {
 public:
  Lowering(const Schedule& schedule, const StageDurations& durations, const LowerOptions& options,
           const Timeline& timeline)
      : s_(schedule), durations_(durations), options_(options), timeline_(timeline), meetings_(timeline) {
    out_.actions.resize(s_.ranks);
    f_begin_.resize(size_t(s_.stages()) * s_.micro_batches);
    b_begin_ = f_begin_;
    for (const std::vector<TimedAction>& list : timeline.ranks) {
      for (const TimedAction& t : list) {
        if (t.action.kind != Action::kW)
          BeginOf(t.action.kind == Action::kF, t.action.stage, t.action.micro_batch) = t.begin;
      }
    }
  }

  absl::StatusOr<LoweredSchedule> Run() {
    MakeEdges();
    RETURN_IF_ERROR(MakeReduceGroups());
    CollectEvents();
    std::sort(events_.begin(), events_.end(), [](const Event& a, const Event& b) { return a.Order() < b.Order(); });
    for (const Event& e : events_) Emit(e);
    for (std::vector<Action>& list : out_.actions) {
      NumberGroups(list);
      if (options_.zero == 3 && options_.resident_stages > 0) {
        ASSIGN_OR_RETURN(list, AddResidency(list, options_.resident_stages));
      }
      list.push_back({.kind = Action::kUpdate});
    }
    CountSlots();
    return std::move(out_);
  }

 private:
  int EdgeFrom(int replica, int stage, Edge::Kind kind) const {
    const int boundaries = s_.stages() - 1;
    return replica * 2 * boundaries + (kind == Edge::kActivation ? stage : boundaries + stage - 1);
  }

  double& BeginOf(bool forward, int stage, int micro_batch) {
    return (forward ? f_begin_ : b_begin_)[size_t(stage) * s_.micro_batches + micro_batch];
  }

  // Of what `t` makes, for `receiver` of the same replica.
  double TransferTime(const TimedAction& t, int receiver) {
    const Action& a = t.action;
    const int from = s_.rank_of[a.replica][a.stage], to = s_.rank_of[a.replica][receiver];
    if (from == to) return t.end;
    const double needed = BeginOf(a.kind == Action::kF, receiver, a.micro_batch);
    return meetings_.Between(from, to, t.end,
                             std::max(t.end, needed - durations_.Transfer(a.micro_batch, s_.micro_batches)));
  }

  void MakeEdges() {
    for (int replica = 0; replica < s_.replicas; ++replica) {
      for (Edge::Kind kind : {Edge::kActivation, Edge::kGradient}) {
        for (int boundary = 0; boundary + 1 < s_.stages(); ++boundary) {
          Edge edge{.kind = kind, .replica = static_cast<int16_t>(replica)};
          edge.stage = static_cast<int16_t>(kind == Edge::kActivation ? boundary : boundary + 1);
          edge.from = s_.rank_of[replica][edge.stage];
          edge.to = s_.rank_of[replica][edge.receiver()];
          out_.edges.push_back(edge);
        }
      }
    }
    std::map<std::tuple<Edge::Kind, int, int>, int> channels;
    for (const Edge& e : out_.edges) {
      if (e.from != e.to) channels[{e.kind, e.from, e.to}] = 0;
    }
    for (auto& [key, channel] : channels) {
      const auto [kind, from, to] = key;
      channel = static_cast<int>(out_.channels.size());
      out_.channels.push_back(ToString(Edge{.kind = kind, .from = from, .to = to}));
    }
    for (const Edge& e : out_.edges) out_.channel_of.push_back(e.from == e.to ? -1 : channels[{e.kind, e.from, e.to}]);
  }

  absl::Status MakeReduceGroups() {
    for (int s = 0; s < s_.stages(); ++s) out_.reduce_group.push_back(s);
    for (const std::vector<int>& tied : options_.tied) {
      for (int stage : tied) {
        if (stage < 0 || stage >= s_.stages()) {
          return absl::InvalidArgumentError(absl::StrFormat("tied stage %d of %d", stage, s_.stages()));
        }
        const int joined = out_.reduce_group[stage], group = out_.reduce_group[tied[0]];
        std::replace(out_.reduce_group.begin(), out_.reduce_group.end(), std::max(joined, group),
                     std::min(joined, group));
      }
    }
    return absl::OkStatus();
  }

  void CollectEvents() {
    std::vector<double> complete(s_.stages(), 0);  // by reduce_group: the last B or W of all members
    for (int r = 0; r < s_.ranks; ++r) {
      const std::vector<Action>& list = s_.compute[r];
      for (size_t i = 0; i < list.size(); ++i) {
        const TimedAction& t = timeline_.ranks[r][i];
        const Action& a = t.action;
        if (i == 0 || a.overlap == 0 || a.overlap != list[i - 1].overlap) {
          events_.push_back({t.begin, Event::kComputation, a.stage, a.micro_batch, r, i});
        }
        if (Ends(a)) {
          double& last = complete[out_.reduce_group[a.stage]];
          last = std::max(last, t.end);
        }
        const bool forward = a.kind == Action::kF;
        const int to = forward ? a.stage + 1 : a.stage - 1;
        if ((!forward && !IsBackward(a)) || to < 0 || to == s_.stages()) continue;
        const int edge = EdgeFrom(a.replica, a.stage, forward ? Edge::kActivation : Edge::kGradient);
        events_.push_back(
            {TransferTime(t, to), Event::kTransfer, a.stage, a.micro_batch, r, static_cast<size_t>(edge)});
      }
    }
    for (int g = 0; g < s_.stages(); ++g) {
      if (out_.reduce_group[g] == g) events_.push_back({complete[g], Event::kReduction, g});
    }
  }

  void Emit(const Event& e) {
    if (e.what == Event::kComputation) {
      const std::vector<Action>& list = s_.compute[e.rank];
      for (size_t i = e.index; i < GroupEnd(list, e.index); ++i) out_.actions[e.rank].push_back(list[i]);
    } else if (e.what == Event::kReduction) {
      for (int stage = 0; stage < s_.stages(); ++stage) {
        if (out_.reduce_group[stage] != e.stage) continue;
        for (int replica = 0; replica < s_.replicas; ++replica) {
          out_.actions[s_.rank_of[replica][stage]].push_back({.kind = Action::kReduce,
                                                              .replica = static_cast<int16_t>(replica),
                                                              .stage = static_cast<int16_t>(stage)});
        }
      }
    } else {
      EmitTransfer(e);
    }
  }

  void EmitTransfer(const Event& e) {
    const Edge& edge = out_.edges[e.index];
    Action a{.kind = Action::kCopyLocal,
             .replica = edge.replica,
             .stage = edge.stage,
             .micro_batch = e.micro_batch,
             .edge = static_cast<int16_t>(e.index)};
    if (edge.from == edge.to) {
      out_.actions[edge.from].push_back(a);
      return;
    }
    a.kind = Action::kSend;
    out_.actions[edge.from].push_back(a);
    a.kind = Action::kRecv;
    a.stage = static_cast<int16_t>(edge.receiver());
    out_.actions[edge.to].push_back(a);
  }

  // Numbers pairs of compute, and runs of sends and receives, anew: neighbouring groups differ.
  static void NumberGroups(std::vector<Action>& list) {
    const auto message = [&](size_t i) { return list[i].kind == Action::kSend || list[i].kind == Action::kRecv; };
    int groups = 0;
    for (size_t i = 0; i < list.size();) {
      size_t end = GroupEnd(list, i);
      if (message(i)) {
        while (end < list.size() && message(end)) ++end;
      }
      const int16_t id = static_cast<int16_t>(end - i > 1 ? groups++ % kOverlapIds + 1 : 0);
      for (; i < end; ++i) list[i].overlap = id;
    }
  }

  void CountSlots() {
    const SlotUses uses = FindSlotUses(s_, out_.edges, out_.actions);
    const auto count = [](const StageUses& all) {
      std::vector<std::vector<int>> counts;
      for (const auto& replica : all) {
        counts.emplace_back();
        for (const std::vector<Use>& stage : replica) counts.back().push_back(FewestSlots(stage));
      }
      return counts;
    };
    out_.slots = count(uses.inputs);
    out_.activation_slots = count(uses.activations);
    out_.gradient_slots = count(uses.gradients);
  }

  const Schedule& s_;
  const StageDurations& durations_;
  const LowerOptions& options_;
  const Timeline& timeline_;
  const MeetingTimes meetings_;
  std::vector<double> f_begin_, b_begin_;  // of F, and of B or I
  std::vector<Event> events_;
  LoweredSchedule out_;
};

absl::Status CheckOptions(const LowerOptions& o) {
  if (o.zero < 0 || o.zero > 3) return absl::InvalidArgumentError(absl::StrFormat("zero = %d: must be 0 to 3", o.zero));
  if (o.resident_stages < 0 || (o.resident_stages > 0 && o.zero != 3)) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "resident_stages = %d with zero = %d: only ZeRO-3 shards parameters", o.resident_stages, o.zero));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<LoweredSchedule> LowerSchedule(const Schedule& schedule, const StageDurations& durations,
                                              const LowerOptions& options) {
  RETURN_IF_ERROR(ValidateSchedule(schedule));
  RETURN_IF_ERROR(CheckOptions(options));
  ASSIGN_OR_RETURN(const Timeline timeline, Simulate(schedule, durations));
  ASSIGN_OR_RETURN(LoweredSchedule lowered, Lowering(schedule, durations, options, timeline).Run());
  RETURN_IF_ERROR(ValidateLowered(schedule, lowered, options));
  return lowered;
}

}  // namespace strata
