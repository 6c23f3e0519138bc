#include "launch/job/pipeline_job.h"

#include <algorithm>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "core/base/status.h"
#include "launch/config/pipeline.h"
#include "parallel/pipeline/balance.h"
#include "parallel/pipeline/simulate.h"
#include "parallel/pipeline/text.h"

namespace strata {
namespace {

// A transfer beside the forward pass of a mean stage, a third of its work. It decides where receives stand in a rank's list, and little there.
constexpr double kTransfer = 0.02;

LoweredSchedule OneStage(const JobConfig& config) {
  return {.actions = {TrainActions(static_cast<int>(config.batch.accumulate))}};
}

// F of each micro-batch through the stages of the first replica, in order: receives come when they are needed.
LoweredSchedule ForwardOnly(const Schedule& schedule, int micro_batches) {
  const std::vector<int>& rank_of = schedule.rank_of[0];
  LoweredSchedule result;
  result.actions.resize(schedule.ranks);
  const auto stages = static_cast<int16_t>(schedule.stages());
  for (int16_t s = 0; s + 1 < stages; ++s) {
    result.edges.push_back({.from = rank_of[s], .to = rank_of[s + 1], .stage = s});
  }
  for (int m = 0; m < micro_batches; ++m) {
    for (int16_t s = 0; s < stages; ++s) {
      const auto act = [&](Action::Kind kind, int rank, int16_t edge) {
        result.actions[rank].push_back({.kind = kind, .stage = s, .micro_batch = m, .edge = edge});
      };
      const auto before = static_cast<int16_t>(s - 1);
      if (s > 0 && rank_of[s - 1] != rank_of[s]) act(Action::kRecv, rank_of[s], before);
      act(Action::kF, rank_of[s], -1);
      if (s + 1 == stages) continue;
      act(rank_of[s] == rank_of[s + 1] ? Action::kCopyLocal : Action::kSend, rank_of[s], s);
    }
  }
  for (std::vector<Action>& rank : result.actions) rank.push_back({.kind = Action::kUpdate});
  return result;
}

// Stages that share a parameter, where each rank has at most one of them: their reductions meet. Else the gradient is summed
// at the end of the step.
absl::StatusOr<std::vector<std::vector<int>>> TiedStages(const Graph& forward, const StageLayout& layout,
                                                         const Schedule& schedule) {
  ASSIGN_OR_RETURN(const std::vector<StageGraph> stages, CutStages(forward, layout));
  std::map<std::string, std::vector<int>> readers;
  for (const StageGraph& stage : stages) {
    for (const State& s : stage.graph.states) {
      if (s.role == Role::kParam) readers[s.name].push_back(stage.stage);
    }
  }
  std::set<std::vector<int>> tied;
  for (const auto& [name, several] : readers) {
    std::set<int> ranks;
    for (const auto& rank_of : schedule.rank_of) {
      for (const int s : several) ranks.insert(rank_of[s]);
    }
    if (several.size() > 1 && ranks.size() == several.size() * schedule.rank_of.size()) tied.insert(several);
  }
  return std::vector<std::vector<int>>(tied.begin(), tied.end());
}

}  // namespace

absl::StatusOr<JobPipeline> MakePipeline(const JobConfig& config, const ModelCosts& costs, const Graph& forward) {
  JobPipeline p;
  if (config.parallel.pp == 1) {
    p.schedule = {.micro_batches = static_cast<int>(config.batch.accumulate), .rank_of = {{0}}};
    p.layout = {{{0, static_cast<int>(config.model.layers)}}};
    p.train = OneStage(config);
    p.eval = ForwardOnly(p.schedule, 1);
    return p;
  }
  ASSIGN_OR_RETURN(p.schedule, ScheduleOf(config));
  ASSIGN_OR_RETURN(p.layout, StageLayoutOf(config, p.schedule, costs));
  p.durations = ModelledDurations(p.layout, costs);
  double passes = 0;
  for (const StageDurations::Stage& s : p.durations.stages) passes += s.forward;
  p.durations.latency = kTransfer * passes / p.layout.num_stages();
  LowerOptions options{.zero = static_cast<int>(config.parallel.zero.stage),
                       .resident_stages = static_cast<int>(config.parallel.resident_stages)};
  ASSIGN_OR_RETURN(options.tied, TiedStages(forward, p.layout, p.schedule));
  ASSIGN_OR_RETURN(p.train, LowerSchedule(p.schedule, p.durations, options));
  p.eval_micro_batches = p.schedule.ranks;
  p.eval = ForwardOnly(p.schedule, p.eval_micro_batches);
  return p;
}

std::vector<StageGraph> StagesOfRank(const JobStages& stages, const Schedule& schedule, int rank) {
  std::vector<StageGraph> mine;
  for (size_t replica = 0; replica < stages.size(); ++replica) {
    for (size_t stage = 0; stage < stages[replica].size(); ++stage) {
      if (schedule.rank_of[replica][stage] == rank) mine.push_back(stages[replica][stage]);
    }
  }
  return mine;
}

StageOwners OwnersOf(const JobStages& stages, const Schedule& schedule, const Mesh& mesh) {
  StageOwners owners{.axes = mesh.Find("pp")};
  if (owners.axes == 0) return owners;
  for (int rank = 0; rank < schedule.ranks; ++rank) {
    for (const StageGraph& stage : StagesOfRank(stages, schedule, rank)) {
      for (const State& s : stage.graph.states) {
        if (s.role != Role::kParam) continue;
        StageOwners::Param& param = owners.params[s.name];
        const bool again = !param.ranks.empty() && param.ranks.back() == rank;
        param.at_end |= again;
        if (!again) param.ranks.push_back(rank);
      }
    }
  }
  return owners;
}

std::vector<Edge> EdgesOf(std::vector<Edge> edges, int inner, int index) {
  for (Edge& e : edges) e.from = e.from * inner + index, e.to = e.to * inner + index;
  return edges;
}

std::string PipelineReport(const JobConfig& config, const JobPipeline& p, PrintDetail detail) {
  const Schedule& s = p.schedule;
  if (s.ranks == 1) return "";
  std::string text =
      absl::StrFormat("pipeline %s: %d ranks x %d stage%s%s, %d micro-batches", s.name, s.ranks, s.chunks,
                      s.chunks == 1 ? "" : "s", s.replicas == 1 ? "" : " in both directions", s.micro_batches);
  StageDurations compute = p.durations;
  compute.latency = 0;
  if (const absl::StatusOr<Timeline> t = Simulate(s, compute); t.ok()) {
    absl::StrAppendFormat(&text, ", %.1f%% of the time idle (modelled, without transfers)", 100 * BubbleFraction(*t));
  }
  double work = 0;
  const auto work_of = [&](int stage) {
    const StageDurations::Stage& d = p.durations.stages[stage];
    return d.forward + d.input_grad + d.weight_grad;
  };
  for (int i = 0; i < s.stages(); ++i) work += work_of(i);
  const std::vector<std::string> layout = absl::StrSplit(ToString(p.layout), " | ");
  absl::StrAppendFormat(&text, "\n  %-6s %-10s %6s  %s\n", "stage", "on ranks", "work", "layers");
  const int64_t inner = config.parallel.dp * config.parallel.tp;
  for (int i = 0; i < s.stages(); ++i) {
    std::vector<std::string> ranks;
    for (const auto& rank_of : s.rank_of) {
      const int64_t first = rank_of[i] * inner;
      ranks.push_back(inner == 1 ? absl::StrCat(first) : absl::StrCat(first, "-", first + inner - 1));
    }
    absl::StrAppendFormat(&text, "  %-6d %-10s %5.1f%%  %s\n", i, absl::StrJoin(ranks, ","), 100 * work_of(i) / work,
                          layout[i]);
  }
  const bool whole = detail == PrintDetail::kSteps;
  const std::vector<std::string> rows = absl::StrSplit(whole ? DumpLowered(p.train) : DumpSchedule(s), '\n');
  constexpr size_t kWidth = 118;
  for (const std::string& row : rows) {
    if (row.empty() || row[0] == '#') continue;
    const bool cut = !whole && row.size() > kWidth;
    absl::StrAppendFormat(&text, "  %s%s\n", cut ? row.substr(0, kWidth) : row, cut ? " ..." : "");
  }
  return text;
}

}  // namespace strata
