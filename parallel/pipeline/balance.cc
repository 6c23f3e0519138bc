#include "parallel/pipeline/balance.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <vector>

#include "absl/strings/str_format.h"

namespace strata {
namespace {

// Of the slowest stage: by how much it must be faster for a block to be cut. Estimates are no better than that, and with whole
// blocks stages have the same buckets, plans and kernels.
constexpr double kWorthACut = 0.005;

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

// The embedding, `unit` parts of blocks at a time, the head. None where there are more stages than items.
std::optional<Runs> BestRuns(const ModelCosts& costs, int unit, int stages) {
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
  // A cut block costs more than any unevenness.
  const int per_block = costs.parts_per_block / unit, items = static_cast<int>(prefix.size()) - 1;
  const double total = prefix.back();
  const auto price = [&](int begin, double cost) {
    const bool cuts = begin > 0 && begin + 1 < items && (begin - 1) % per_block != 0;
    return cost * cost + (cuts ? total * total : 0);
  };
  const double slack = *limit * (1 + 1e-9);  // equal sums differ in their last bits
  return Runs{CutRuns(prefix, stages, slack, price), *limit};
}

}  // namespace

absl::StatusOr<StageLayout> BalancedLayout(const ModelCosts& costs, int num_stages) {
  const int parts = static_cast<int>(costs.parts.size()), per_block = costs.parts_per_block;
  if (num_stages < 2) return StageLayout{{{0, parts}}, per_block};
  std::optional<Runs> runs = BestRuns(costs, 1, num_stages);
  if (!runs) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%d stages are more than the %d parts of the model: embedding, %d blocks%s, head", num_stages,
                        parts + 2, parts / per_block, per_block > 1 ? absl::StrFormat(" of %d parts", per_block) : ""));
  }
  int unit = 1;
  if (std::optional<Runs> whole = BestRuns(costs, per_block, num_stages);
      whole && whole->longest <= runs->longest * (1 + kWorthACut)) {
    runs = std::move(whole);
    unit = per_block;
  }
  StageLayout layout{.parts_per_block = per_block};
  for (int s = 0; s < num_stages; ++s) {  // item i > 0 begins with part (i - 1) * unit
    const int end = s + 1 < num_stages ? std::min((runs->begins[s + 1] - 1) * unit, parts) : parts;
    layout.stages.push_back({layout.num_parts(), end});
  }
  return layout;
}

ModelCosts EvenCosts(const ModelBlocks& model) {
  return {.parts = std::vector<double>(static_cast<size_t>(model.count) * model.parts, 1.0),
          .parts_per_block = model.parts};
}

int MostStages(const ModelBlocks& model) { return model.count * model.parts + 2; }

}  // namespace strata
