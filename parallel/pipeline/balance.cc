#include "parallel/pipeline/balance.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <vector>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "parallel/pipeline/simulate.h"

namespace strata {
namespace {

// Of the slowest stage, or of the step: by how much it must be faster for a block to be cut. Estimates are no better than that,
// and with whole blocks stages have the same buckets, plans and kernels.
constexpr double kWorthACut = 0.005;

// That may be simulated to look for a better layout: half a second of it.
constexpr int64_t kMostActions = 16'000'000;

// Items, whose sums are prefix[i], in order, in `stages` runs.
struct Runs {
  std::vector<int> begins;  // item that a run begins with
  double longest = 0;
};

// Runs, none empty, each of cost at most `limit`, so that the sum of `price(begin, cost)` is least; no begins where it cannot
// be done.
template <typename Price>
std::vector<int> CutRuns(const std::vector<double>& prefix, int stages, double limit, Price price) {
  const int n = static_cast<int>(prefix.size()) - 1;
  constexpr double kNone = std::numeric_limits<double>::infinity();
  std::vector<std::vector<double>> best(stages + 1, std::vector<double>(n + 1, kNone));
  std::vector<std::vector<int>> from(stages + 1, std::vector<int>(n + 1, -1));
  best[0][0] = 0;
  for (int s = 1; s <= stages; ++s) {
    for (int end = s; end <= n; ++end) {
      for (int begin = s - 1; begin < end; ++begin) {
        const double cost = prefix[end] - prefix[begin];
        if (cost > limit || best[s - 1][begin] + price(begin, cost) >= best[s][end]) continue;
        best[s][end] = best[s - 1][begin] + price(begin, cost);
        from[s][end] = begin;
      }
    }
  }
  if (best[stages][n] == kNone) return {};
  std::vector<int> begins(stages);
  for (int s = stages, end = n; s > 0; end = from[s][end], --s) begins[s - 1] = from[s][end];
  return begins;
}

// What to look at beside the slowest stage.
enum class Prefer : uint8_t { kFewCuts, kEven };

// The embedding, `unit` parts of blocks at a time, the head. None where there are more stages than items.
std::optional<Runs> BestRuns(const ModelCosts& costs, int unit, int stages, Prefer prefer) {
  std::vector<double> prefix = {0, costs.embedding};
  for (size_t i = 0; i < costs.parts.size(); ++i) {
    if (i % unit == 0) prefix.push_back(prefix.back());
    prefix.back() += costs.parts[i];
  }
  prefix.push_back(prefix.back() + costs.head);
  if (stages > static_cast<int>(prefix.size()) - 1) return std::nullopt;
  // The least limit that can be kept is a sum of neighbouring items.
  std::vector<double> sums;
  for (size_t i = 0; i < prefix.size(); ++i) {
    for (size_t j = i + 1; j < prefix.size(); ++j) sums.push_back(prefix[j] - prefix[i]);
  }
  std::sort(sums.begin(), sums.end());
  const auto free = [](int, double) { return 0.0; };
  const auto limit = std::partition_point(sums.begin(), sums.end(),
                                          [&](double sum) { return CutRuns(prefix, stages, sum, free).empty(); });
  const int per_block = costs.parts_per_block / unit, items = static_cast<int>(prefix.size()) - 1;
  // A cut block costs more than any unevenness.
  const double cut_price = prefer == Prefer::kFewCuts ? prefix.back() * prefix.back() : 0;
  const auto price = [&](int begin, double cost) {
    const bool cuts = begin > 0 && begin + 1 < items && (begin - 1) % per_block != 0;
    return cost * cost + (cuts ? cut_price : 0);
  };
  const double slack = *limit * (1 + 1e-9);  // equal sums differ in their last bits
  return Runs{CutRuns(prefix, stages, slack, price), *limit};
}

StageLayout LayoutOf(const Runs& runs, int unit, const ModelCosts& costs) {
  const int parts = static_cast<int>(costs.parts.size()), stages = static_cast<int>(runs.begins.size());
  StageLayout layout{.parts_per_block = costs.parts_per_block};
  for (int s = 0; s < stages; ++s) {  // item i > 0 begins with part (i - 1) * unit
    const int end = s + 1 < stages ? std::min((runs.begins[s + 1] - 1) * unit, parts) : parts;
    layout.stages.push_back({layout.num_parts(), end});
  }
  return layout;
}

absl::Status TooManyStages(const ModelCosts& costs, int num_stages) {
  const int parts = static_cast<int>(costs.parts.size()), per_block = costs.parts_per_block;
  return absl::InvalidArgumentError(
      absl::StrFormat("%d stages are more than the %d parts of the model: embedding, %d blocks%s, head", num_stages,
                      parts + 2, parts / per_block, per_block > 1 ? absl::StrFormat(" of %d parts", per_block) : ""));
}

absl::StatusOr<double> StepOf(const StageLayout& layout, const ModelCosts& costs, const Schedule& schedule) {
  ASSIGN_OR_RETURN(const Timeline step, Simulate(schedule, ModelledDurations(layout, costs)));
  return step.makespan();
}

// A layout and how long its step takes.
struct Timed {
  StageLayout layout;
  double step = 0;
};

// `layout` with the end of stage `s` moved, if no stage but the first and the last is empty then.
std::optional<StageLayout> Moved(StageLayout layout, int s, int parts) {
  StageLayout::Parts &here = layout.stages[s], &next = layout.stages[s + 1];
  next.first = here.end += parts;
  if (here.end - here.first < (s == 0 ? 0 : 1)) return std::nullopt;
  if (next.end - next.first < (s + 2 == layout.num_stages() ? 0 : 1)) return std::nullopt;
  return layout;
}

// Moves one end of a stage after the other, by parts up to a block, as long as the step gains.
absl::Status Climb(const ModelCosts& costs, const Schedule& schedule, Timed& at) {
  int64_t actions = 0, left = kMostActions;
  for (const std::vector<Action>& rank : schedule.compute) actions += std::ssize(rank);
  for (int s = 0, still = 0; still + 1 < schedule.stages(); s = (s + 1) % (schedule.stages() - 1)) {
    ++still;
    for (int parts = -costs.parts_per_block; parts <= costs.parts_per_block; ++parts) {
      std::optional<StageLayout> moved = Moved(at.layout, s, parts);
      if (parts == 0 || !moved) continue;
      if ((left -= actions) < 0) return absl::OkStatus();
      ASSIGN_OR_RETURN(const double step, StepOf(*moved, costs, schedule));
      if (step * (1 + kWorthACut) >= at.step) continue;
      at = {*std::move(moved), step};
      still = 0;
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<StageLayout> BalancedLayout(const ModelCosts& costs, int num_stages) {
  if (num_stages < 2) return StageLayout{{{0, static_cast<int>(costs.parts.size())}}, costs.parts_per_block};
  const std::optional<Runs> halves = BestRuns(costs, 1, num_stages, Prefer::kFewCuts);
  if (!halves) return TooManyStages(costs, num_stages);
  const std::optional<Runs> whole = BestRuns(costs, costs.parts_per_block, num_stages, Prefer::kEven);
  if (!whole || whole->longest > halves->longest * (1 + kWorthACut)) return LayoutOf(*halves, 1, costs);
  return LayoutOf(*whole, costs.parts_per_block, costs);
}

absl::StatusOr<StageLayout> FastestLayout(const ModelCosts& costs, const Schedule& schedule) {
  const int stages = schedule.stages();
  struct Try {
    int unit;
    Prefer prefer;
  };
  const Try tries[] = {{costs.parts_per_block, Prefer::kEven}, {1, Prefer::kFewCuts}, {1, Prefer::kEven}};
  std::optional<Timed> best;
  for (const auto& [unit, prefer] : tries) {
    const std::optional<Runs> runs = BestRuns(costs, unit, stages, prefer);
    if (!runs) continue;
    Timed t{LayoutOf(*runs, unit, costs)};
    ASSIGN_OR_RETURN(t.step, StepOf(t.layout, costs, schedule));
    if (!best || t.step * (1 + kWorthACut) < best->step) best = std::move(t);
  }
  if (!best) return TooManyStages(costs, stages);
  RETURN_IF_ERROR(Climb(costs, schedule, *best));
  return best->layout;
}

StageDurations ModelledDurations(const StageLayout& layout, const ModelCosts& costs) {
  double total = costs.embedding + costs.head;
  for (const double part : costs.parts) total += part;
  const double mean = total / layout.num_stages();
  StageDurations d;
  for (int s = 0; s < layout.num_stages(); ++s) {
    double work = (s == 0 ? costs.embedding : 0) + (s + 1 == layout.num_stages() ? costs.head : 0);
    for (int p = layout.stages[s].first; p < layout.stages[s].end; ++p) work += costs.parts[p];
    const double third = std::max(work, 1e-3 * mean) / 3;  // a stage of the embedding alone takes some time
    d.stages.push_back({.forward = third, .input_grad = third, .weight_grad = third});
  }
  return d;
}

ModelCosts EvenCosts(const ModelBlocks& model) {
  return {.parts = std::vector<double>(static_cast<size_t>(model.count) * model.parts, 1.0),
          .parts_per_block = model.parts};
}

int MostStages(const ModelBlocks& model) { return model.count * model.parts + 2; }

}  // namespace strata
