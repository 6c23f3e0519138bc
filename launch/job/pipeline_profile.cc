#include "launch/job/pipeline_profile.h"

#include <algorithm>
#include <limits>
#include <map>
#include <optional>
#include <tuple>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/status.h"

namespace strata {
namespace {

constexpr double kFar = std::numeric_limits<double>::infinity();
constexpr int16_t kComputeStream = 0;
constexpr double kTimerGap = 20e-6;  // between two steps of an action, at most: the timers' own
constexpr double kNoTime = 1e-9;     // of a chunk without code, such as I of a stage that is the embedding alone

struct Span {
  double begin = kFar, end = -kFar;
};
struct ActionTime {
  Span span;               // of a chunk, on the compute stream
  double busy = 0;         // in which a step of it runs, within the span; of an update without its collectives
  double with_timers = 0;  // and with the gaps that timing makes between steps
  double collectives = 0;  // of an update
};

double Median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// The length of the union of the spans, within `bounds`, and of the gaps between them that are no longer than `gap`.
double Covered(std::vector<Span> spans, const Span& bounds, double gap = 0) {
  std::sort(spans.begin(), spans.end(), [](const Span& a, const Span& b) { return a.begin < b.begin; });
  double covered = 0, reached = bounds.begin;
  for (const Span& s : spans) {
    const double begin = s.begin - reached <= gap ? reached : s.begin, end = std::min(s.end, bounds.end);
    if (end <= begin) continue;
    covered += end - begin;
    reached = end;
  }
  return covered;
}

ActionTime TimeOf(const std::vector<const Executor::TimedStep*>& steps) {
  ActionTime time;
  Span all;
  std::vector<Span> spans, collectives;
  const Action::Kind kind = steps.front()->action.kind;
  const bool chunk = kind <= Action::kW;
  for (const Executor::TimedStep* t : steps) {
    const Span s{t->begin, t->begin + t->seconds};
    (kind == Action::kUpdate && t->step->kind == Step::kCollective ? collectives : spans).push_back(s);
    all = {std::min(all.begin, s.begin), std::max(all.end, s.end)};
    if (chunk && t->stream != kComputeStream) continue;
    time.span = {std::min(time.span.begin, s.begin), std::max(time.span.end, s.end)};
  }
  if (time.span.end < time.span.begin) time.span = all;
  time.busy = Covered(spans, time.span);
  time.with_timers = Covered(std::move(spans), time.span, kTimerGap);
  time.collectives = Covered(std::move(collectives), time.span);
  return time;
}

// The actions of one rank in one step. An action may occur several times, such as unshard: in order.
class RankTimes {
 public:
  explicit RankTimes(const std::vector<Executor::TimedStep>& steps) {
    std::map<Key, std::vector<std::vector<const Executor::TimedStep*>>> occurrences;
    for (const Executor::TimedStep& t : steps) {
      auto& list = occurrences[KeyOf(t.action)];
      if (list.empty() || list.front().front()->step == t.step) list.emplace_back();
      list.back().push_back(&t);
    }
    for (const auto& [key, list] : occurrences) {
      for (const auto& each : list) times_[key].push_back(TimeOf(each));
    }
  }

  // Null: it has no steps.
  const ActionTime* Find(const Action& a, size_t occurrence = 0) const {
    const auto it = times_.find(KeyOf(a));
    return it == times_.end() || occurrence >= it->second.size() ? nullptr : &it->second[occurrence];
  }

 private:
  using Key = std::tuple<int, int, int, int, int>;
  static Key KeyOf(const Action& a) { return {a.kind, a.replica, a.stage, a.micro_batch, a.edge}; }
  std::map<Key, std::vector<ActionTime>> times_;
};

// One step of all ranks.
class StepTimes {
 public:
  StepTimes(const JobPipeline& pipeline, const StepProfile& step)
      : p_(pipeline), inner_(static_cast<int>(step.size()) / pipeline.schedule.ranks) {
    for (const auto& rank : step) ranks_.emplace_back(rank);
  }

  // Adds what each chunk, transfer, reduction and update took.
  absl::Status Collect(std::map<std::pair<int, Action::Kind>, std::vector<double>>& of_stage,
                       std::vector<std::vector<double>>& of_edge) const {
    for (int r = 0; r < p_.schedule.ranks; ++r) {
      for (int i = 0; i < inner_; ++i) {
        for (const Action& a : p_.train.actions[r]) {
          const ActionTime* time = RankOf(r, i).Find(a);
          if (time == nullptr && a.kind == Action::kF) return Missing(a, r);
          if (IsCompute(a)) of_stage[{a.stage, a.kind}].push_back(time == nullptr ? kNoTime : time->busy);
          if (a.kind == Action::kUnshard || a.kind == Action::kReduce) {
            of_stage[{a.stage, a.kind}].push_back(LeastBusy(a));
          }
          if (a.kind == Action::kUpdate) {
            const auto held = StagesOf(r);
            const double update = Update(r, i, &ActionTime::busy) / static_cast<double>(held.size());
            for (const int stage : held) of_stage[{stage, a.kind}].push_back(update);
          }
          if (a.kind != Action::kSend) continue;
          ASSIGN_OR_RETURN(const double transfer, Transfer(a, i));
          of_edge[a.edge].push_back(transfer);
        }
      }
    }
    return absl::OkStatus();
  }

  absl::StatusOr<Timeline> OnOneClock() const {
    ASSIGN_OR_RETURN(const std::vector<double> clocks, Clocks());
    Timeline timeline;
    double first = kFar;
    for (int r = 0; r < p_.schedule.ranks; ++r) {
      std::vector<TimedAction>& list = timeline.ranks.emplace_back();
      std::map<std::tuple<int, int, int>, size_t> seen;
      for (Action a : p_.train.actions[r]) {
        const size_t occurrence = a.micro_batch < 0 ? seen[{a.kind, a.replica, a.stage}]++ : 0;
        const ActionTime* time = RankOf(r, 0).Find(a, occurrence);
        if (time == nullptr && a.kind == Action::kF) return Missing(a, r);
        if (time == nullptr) continue;
        a.overlap = 0;  // they ran one after the other
        const double end = time->span.end - clocks[r];
        double begin = time->span.begin - clocks[r];
        if (IsCompute(a)) begin = end - time->with_timers;
        if (a.kind == Action::kUpdate) begin = end - Update(r, 0, &ActionTime::with_timers);
        first = std::min(first, begin);
        list.push_back({a, begin, end});
      }
    }
    for (std::vector<TimedAction>& list : timeline.ranks) {
      for (TimedAction& t : list) t = {t.action, t.begin - first, t.end - first};
    }
    return timeline;
  }

 private:
  const RankTimes& RankOf(int pipeline_rank, int i) const { return ranks_[pipeline_rank * inner_ + i]; }

  static absl::Status Missing(const Action& a, int rank) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s of pipeline rank %d has no measured time", ToString(a), rank));
  }

  Action ReceiveOf(const Action& send) const {
    return {.kind = Action::kRecv,
            .replica = send.replica,
            .stage = static_cast<int16_t>(p_.train.edges[send.edge].receiver()),
            .micro_batch = send.micro_batch,
            .edge = send.edge};
  }

  absl::StatusOr<double> Transfer(const Action& send, int i) const {
    const Edge& e = p_.train.edges[send.edge];
    const ActionTime *from = RankOf(e.from, i).Find(send), *to = RankOf(e.to, i).Find(ReceiveOf(send));
    if (from == nullptr) return Missing(send, e.from);
    if (to == nullptr) return Missing(ReceiveOf(send), e.to);
    return std::min(from->busy, to->busy);
  }

  // Of the rank that waits least; 0 where it has no code.
  double LeastBusy(const Action& a) const {
    double least = kFar;
    for (const RankTimes& rank : ranks_) {
      if (const ActionTime* t = rank.Find(a); t != nullptr) least = std::min(least, t->busy);
    }
    return least == kFar ? 0 : least;
  }

  double Update(int r, int i, double ActionTime::*own) const {
    const Action update{.kind = Action::kUpdate};
    const ActionTime* mine = RankOf(r, i).Find(update);
    if (mine == nullptr) return 0;
    double collectives = kFar;
    for (const RankTimes& rank : ranks_) {
      if (const ActionTime* t = rank.Find(update); t != nullptr) collectives = std::min(collectives, t->collectives);
    }
    return mine->*own + collectives;
  }

  std::vector<int> StagesOf(int rank) const {
    std::vector<int> stages;
    for (const std::vector<int>& rank_of : p_.schedule.rank_of) {
      for (int s = 0; s < p_.schedule.stages(); ++s) {
        if (rank_of[s] == rank) stages.push_back(s);
      }
    }
    return stages;
  }

  // By pipeline rank: what its clock says at the zero of rank 0's.
  absl::StatusOr<std::vector<double>> Clocks() const {
    std::map<std::pair<int, int>, double> ahead;  // of the receiver before the sender, at most
    for (int r = 0; r < p_.schedule.ranks; ++r) {
      for (const Action& a : p_.train.actions[r]) {
        if (a.kind != Action::kSend) continue;
        RETURN_IF_ERROR(Transfer(a, 0).status());
        const int to = p_.train.edges[a.edge].to;
        const double difference = RankOf(to, 0).Find(ReceiveOf(a))->span.end - RankOf(r, 0).Find(a)->span.end;
        const auto [it, added] = ahead.insert({{r, to}, difference});
        if (!added) it->second = std::min(it->second, difference);
      }
    }
    std::vector<std::optional<double>> clocks(p_.schedule.ranks);
    clocks[0] = 0;
    for (int round = 0; round < p_.schedule.ranks; ++round) {
      for (const auto& [pair, most] : ahead) {
        const auto [from, to] = pair;
        const auto back = ahead.find({to, from});
        const double difference = back == ahead.end() ? most : (most - back->second) / 2;
        if (clocks[from] && !clocks[to]) clocks[to] = *clocks[from] + difference;
      }
    }
    std::vector<double> result;
    for (const std::optional<double>& c : clocks) result.push_back(c.value_or(0));  // a rank that nothing is sent to
    return result;
  }

  const JobPipeline& p_;
  const int inner_;
  std::vector<RankTimes> ranks_;
};

}  // namespace

absl::StatusOr<Timeline> TimelineOf(const JobPipeline& pipeline, const StepProfile& step) {
  return StepTimes(pipeline, step).OnOneClock();
}

absl::StatusOr<PipelineProfile> ProfileOf(const JobPipeline& pipeline, std::span<const StepProfile> steps,
                                          std::vector<StageDurations::Stage> modelled) {
  PipelineProfile profile{.durations = {.stages = std::move(modelled)}};
  std::map<std::pair<int, Action::Kind>, std::vector<double>> of_stage;
  std::vector<std::vector<double>> of_edge(pipeline.train.edges.size());
  for (const StepProfile& step : steps) {
    const StepTimes times(pipeline, step);
    RETURN_IF_ERROR(times.Collect(of_stage, of_edge));
    ASSIGN_OR_RETURN(profile.steps.emplace_back(), times.OnOneClock());
  }
  const auto median = [&](int stage, Action::Kind kind, double otherwise) {
    const auto it = of_stage.find({stage, kind});
    return it == of_stage.end() ? otherwise : Median(it->second);
  };
  for (int s = 0; s < pipeline.schedule.stages(); ++s) {
    StageDurations::Stage& stage = profile.durations.stages[s];
    const double parts = stage.input_grad + stage.weight_grad, b = median(s, Action::kB, parts);
    stage.forward = median(s, Action::kF, stage.forward);
    stage.input_grad = median(s, Action::kI, stage.input_grad * b / parts);
    stage.weight_grad = median(s, Action::kW, stage.weight_grad * b / parts);
    stage.backward = median(s, Action::kB, 0);
    stage.unshard = median(s, Action::kUnshard, 0);
    stage.reduce = median(s, Action::kReduce, 0);
    stage.update = median(s, Action::kUpdate, 0);
  }
  for (const std::vector<double>& edge : of_edge) profile.durations.edges.push_back(edge.empty() ? 0 : Median(edge));
  return profile;
}

Streams StreamsOf(const Program& program) {
  bool beside = false, alone = true;  // beside computing; on streams of nothing else
  std::map<int16_t, int> comms;       // of a stream: the only one
  for (const IssuedStep& i : program.issues) {
    if (i.step < 0) continue;
    const int segment = program.SegmentOf(program.actions[i.action]);
    const Step& step = program.segments[segment].steps[i.step];
    if (step.kind != Step::kCollective || program.actions[i.action].edge < 0) continue;
    beside |= i.stream != kComputeStream;
    const auto [it, added] = comms.insert({i.stream, step.comm});
    alone &= added || it->second == step.comm;
  }
  if (!beside) return Streams::kOne;
  return alone ? Streams::kEveryChannel : Streams::kCompute;
}

std::vector<double> IdleShares(const Timeline& timeline) {
  std::vector<double> idle;
  const double length = timeline.makespan();
  for (const double busy : BusyTimes(timeline)) idle.push_back(1 - busy / length);
  return idle;
}

}  // namespace strata
