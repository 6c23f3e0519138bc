#include "parallel/pipeline/simulate.h"

#include <cmath>
#include <deque>
#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/status.h"

namespace strata {
namespace {

constexpr double kNever = -1;  // not yet; every time is >= 0

// The end of F, and of B or I, by (stage, micro-batch): the replica follows from the micro-batch.
class ComputeSimulation {
 public:
  ComputeSimulation(const Schedule& schedule, const StageDurations& durations)
      : s_(schedule),
        d_(durations),
        m_(schedule.micro_batches),
        f_end_(size_t(schedule.stages()) * m_, kNever),
        b_end_(f_end_),
        free_at_(schedule.ranks) {
    timeline_.ranks.resize(s_.ranks);
    for (int r = 0; r < s_.ranks; ++r) timeline_.ranks[r].reserve(s_.compute[r].size());
  }

  absl::StatusOr<Timeline> Run() && {
    for (int r = 0; r < s_.ranks; ++r) ready_.push_back(r);
    while (!ready_.empty()) {
      const int rank = ready_.front();
      ready_.pop_front();
      while (Advance(rank)) {
      }
    }
    RETURN_IF_ERROR(CheckFinished());
    return std::move(timeline_);
  }

 private:
  size_t At(int stage, int micro_batch) const { return size_t(stage) * m_ + micro_batch; }

  // When what `a` needs is on `rank`; kNever if that is not known yet.
  double InputsAt(const Action& a, int rank) const {
    const int stages = s_.stages();
    if (a.kind == Action::kW) return b_end_[At(a.stage, a.micro_batch)];
    const bool forward = a.kind == Action::kF;
    if (!forward && f_end_[At(a.stage, a.micro_batch)] == kNever) return kNever;
    const int from = forward ? a.stage - 1 : a.stage + 1;
    if (from < 0 || from == stages) return 0;
    const double end = (forward ? f_end_ : b_end_)[At(from, a.micro_batch)];
    if (end == kNever || s_.rank_of[a.replica][from] == rank) return end;
    return end + d_.Transfer(a.micro_batch, m_);
  }

  // Runs the next action, or pair, of the rank.
  bool Advance(int rank) {
    const std::vector<Action>& list = s_.compute[rank];
    const size_t first = timeline_.ranks[rank].size();
    if (first == list.size()) return false;
    const size_t end = GroupEnd(list, first);
    double begin = free_at_[rank], takes = 0;
    for (size_t i = first; i < end; ++i) {
      const double inputs = InputsAt(list[i], rank);
      if (inputs == kNever) return false;
      begin = std::max(begin, inputs);
      takes += d_.Of(list[i], m_);
    }
    if (end - first > 1) takes *= d_.pair;
    free_at_[rank] = begin + takes;
    for (size_t i = first; i < end; ++i) Finish(list[i], rank, begin);
    return true;
  }

  void Finish(const Action& a, int rank, double begin) {
    timeline_.ranks[rank].push_back({a, begin, free_at_[rank]});
    if (a.kind == Action::kW) return;
    const bool forward = a.kind == Action::kF;
    (forward ? f_end_ : b_end_)[At(a.stage, a.micro_batch)] = free_at_[rank];
    const int to = forward ? a.stage + 1 : a.stage - 1;
    if (to >= 0 && to < s_.stages() && s_.rank_of[a.replica][to] != rank) ready_.push_back(s_.rank_of[a.replica][to]);
  }

  absl::Status CheckFinished() const {
    std::string waits;
    for (int r = 0; r < s_.ranks; ++r) {
      const size_t done = timeline_.ranks[r].size();
      if (done == s_.compute[r].size()) continue;
      absl::StrAppendFormat(&waits, "%srank %d waits to do %s", waits.empty() ? "" : ", ", r,
                            ToString(s_.compute[r][done]));
    }
    if (waits.empty()) return absl::OkStatus();
    return absl::FailedPreconditionError(absl::StrFormat("schedule %s locks: %s", s_.name, waits));
  }

  const Schedule& s_;
  const StageDurations& d_;
  const int m_;
  std::vector<double> f_end_, b_end_, free_at_;
  std::deque<int> ready_;
  Timeline timeline_;
};

}  // namespace

absl::StatusOr<Timeline> Simulate(const Schedule& schedule, const StageDurations& durations) {
  RETURN_IF_ERROR(CheckDurations(durations, schedule.stages()));
  return ComputeSimulation(schedule, durations).Run();
}

std::vector<int> PeakChunks(const Schedule& schedule) {
  std::vector<int> peaks;
  for (const std::vector<Action>& list : schedule.compute) {
    int held = 0, peak = 0;
    for (const Action& a : list) {
      if (a.kind == Action::kF) peak = std::max(peak, ++held);
      if (Ends(a)) --held;
    }
    peaks.push_back(peak);
  }
  return peaks;
}

std::vector<double> BusyTimes(const Timeline& timeline) {
  std::vector<double> busy;
  for (const std::vector<TimedAction>& rank : timeline.ranks) {
    double sum = 0;
    for (size_t i = 0; i < rank.size(); ++i) {
      const bool pair = i > 0 && rank[i].action.overlap != 0 && rank[i].action.overlap == rank[i - 1].action.overlap;
      const bool works = IsCompute(rank[i].action) || rank[i].action.kind == Action::kUpdate;
      if (works && !pair) sum += rank[i].end - rank[i].begin;
    }
    busy.push_back(sum);
  }
  return busy;
}

double BubbleFraction(const Timeline& timeline) {
  double busy = 0;
  for (double b : BusyTimes(timeline)) busy += b;
  return 1 - busy / static_cast<double>(timeline.ranks.size()) / timeline.makespan();
}

StageDurations DurationsOf(const Timeline& timeline, StageDurations like) {
  struct Sum {
    double time = 0;
    int n = 0;
  };
  std::vector<std::array<Sum, 4>> sums(like.stages.size());  // by kF, kB, kI, kW
  for (const std::vector<TimedAction>& rank : timeline.ranks) {
    for (const TimedAction& t : rank) {
      if (!IsCompute(t.action) || t.action.overlap != 0) continue;  // a pair's span is not its members'
      Sum& sum = sums[t.action.stage][t.action.kind];
      sum.time += t.end - t.begin;
      ++sum.n;
    }
  }
  for (size_t s = 0; s < sums.size(); ++s) {
    StageDurations::Stage& stage = like.stages[s];
    const auto mean = [&](Action::Kind kind, double otherwise) {
      const Sum& sum = sums[s][kind];
      return sum.n > 0 && sum.time > 0 ? sum.time / sum.n : otherwise;
    };
    const double parts = stage.input_grad + stage.weight_grad, scale = mean(Action::kB, parts) / parts;
    stage.forward = mean(Action::kF, stage.forward);
    stage.backward = mean(Action::kB, stage.backward);
    stage.input_grad = mean(Action::kI, stage.input_grad * scale);
    stage.weight_grad = mean(Action::kW, stage.weight_grad * scale);
  }
  return like;
}

}  // namespace strata
