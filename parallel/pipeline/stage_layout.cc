#include "parallel/pipeline/stage_layout.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "core/base/status.h"
#include "core/graph/op.h"
#include "parallel/pipeline/parts.h"

namespace strata {
namespace {

absl::string_view View(std::string_view s) { return {s.data(), s.size()}; }

absl::Status TooManyStages(int num_stages, int num_blocks) {
  return absl::InvalidArgumentError(
      absl::StrFormat("%d stages are more than the %d parts of the model: embedding, %d blocks, head", num_stages,
                      num_blocks + 2, num_blocks));
}

// What one stage is made of, as it is written.
struct Written {
  bool embedding = false, head = false;
  std::optional<StageLayout::Blocks> blocks;
};

absl::StatusOr<Written> ParseStage(absl::string_view text, int next_block) {
  Written stage;
  for (const absl::string_view item : absl::StrSplit(text, ',')) {
    const absl::string_view word = absl::StripAsciiWhitespace(item);
    const std::vector<std::string> ends = absl::StrSplit(word, '-');
    int first = 0, last = 0;
    if (word == "E" && !stage.blocks && !stage.head) {
      stage.embedding = true;
    } else if (word == "H") {
      stage.head = true;
    } else if (!stage.head && !stage.blocks && ends.size() <= 2 && absl::SimpleAtoi(ends.front(), &first) &&
               absl::SimpleAtoi(ends.back(), &last) && first <= last) {
      if (first != next_block) {
        return absl::InvalidArgumentError(absl::StrFormat(
            "block %d where block %d is next: blocks are in order and none is left out", first, next_block));
      }
      stage.blocks = StageLayout::Blocks{first, last + 1};
    } else {
      return absl::InvalidArgumentError(absl::StrFormat(
          "\"%s\" is none of E (the embedding, first), a block or range of blocks such as 4-7, and H (the head, last)",
          word));
    }
  }
  return stage;
}

absl::StatusOr<StageLayout> Parse(std::string_view text, int num_blocks, int num_stages) {
  const std::vector<absl::string_view> texts = absl::StrSplit(View(text), '|');
  if (static_cast<int>(texts.size()) != num_stages) {
    return absl::InvalidArgumentError(absl::StrFormat("%d stages where the schedule has %d", texts.size(), num_stages));
  }
  StageLayout layout;
  for (int s = 0; s < num_stages; ++s) {
    const int next = layout.num_blocks();
    ASSIGN_OR_RETURN(const Written stage, ParseStage(texts[s], next));
    if (stage.embedding != (s == 0)) return absl::InvalidArgumentError("E must be in the first stage, and only there");
    if (stage.head != (s + 1 == num_stages)) {
      return absl::InvalidArgumentError("H must be in the last stage, and only there");
    }
    layout.stages.push_back(stage.blocks.value_or(StageLayout::Blocks{next, next}));
  }
  if (layout.num_blocks() != num_blocks) {
    return absl::InvalidArgumentError(
        absl::StrFormat("it ends with block %d, the model with block %d", layout.num_blocks() - 1, num_blocks - 1));
  }
  return layout;
}

// Items 0 .. n-1 (embedding, blocks, head) cut into `stages` runs, none empty, each of cost at most `limit`, so that
// the sum of `price` of a run is least. [i]: where run i begins; empty where it cannot be done.
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
        if (cost > limit || best[s - 1][begin] + price(cost) >= best[s][end]) continue;
        best[s][end] = best[s - 1][begin] + price(cost);
        from[s][end] = begin;
      }
    }
  }
  if (best[stages][n] == kNone) return {};
  std::vector<int> begins(stages);
  for (int s = stages, end = n; s > 0; end = from[s][end], --s) begins[s - 1] = from[s][end];
  return begins;
}

}  // namespace

int StageLayout::StageOf(int block) const {
  int stage = 0;
  while (stage < num_stages() && block >= stages[stage].end) ++stage;
  return stage;
}

std::string ToString(const StageLayout& layout) {
  std::vector<std::string> texts;
  for (int s = 0; s < layout.num_stages(); ++s) {
    std::vector<std::string> items;
    const auto [first, end] = layout.stages[s];
    if (s == 0) items.push_back("E");
    if (end - first == 1) items.push_back(absl::StrFormat("%d", first));
    if (end - first > 1) items.push_back(absl::StrFormat("%d-%d", first, end - 1));
    if (s + 1 == layout.num_stages()) items.push_back("H");
    texts.push_back(absl::StrJoin(items, ","));
  }
  return absl::StrJoin(texts, " | ");
}

absl::StatusOr<StageLayout> ParseStageLayout(std::string_view text, int num_blocks, int num_stages) {
  absl::StatusOr<StageLayout> layout = Parse(text, num_blocks, num_stages);
  if (layout.ok()) {
    for (int s = 1; s + 1 < num_stages; ++s) {
      if (layout->stages[s].first == layout->stages[s].end) {
        layout = absl::InvalidArgumentError(absl::StrFormat("stage %d is empty", s));
      }
    }
  }
  if (layout.ok()) return layout;
  const absl::StatusOr<StageLayout> even = BalancedLayout({0, 0, std::vector<double>(num_blocks, 1.0)}, num_stages);
  return absl::InvalidArgumentError(
      absl::StrFormat("%s; %s", layout.status().message(),
                      even.ok() ? "legal would be \"" + ToString(*even) + "\"" : std::string(even.status().message())));
}

ModelCosts CostsOf(const Graph& train) {
  const std::vector<ModelPart> parts = PartsOf(train);
  ModelCosts costs;
  for (size_t i = 0; i < parts.size(); ++i) {
    const Node& n = train.nodes[i];
    std::vector<TensorSpec> in;
    for (Value v : n.inputs) in.push_back(train.spec(v));
    const double flops = n.op->Flops(in);
    if (parts[i].kind == ModelPart::kEmbedding) costs.embedding += flops;
    if (parts[i].kind == ModelPart::kHead) costs.head += flops;
    if (parts[i].kind != ModelPart::kBlock) continue;
    costs.blocks.resize(std::max(costs.blocks.size(), static_cast<size_t>(parts[i].block + 1)));
    costs.blocks[parts[i].block] += flops;
  }
  return costs;
}

absl::StatusOr<StageLayout> BalancedLayout(const ModelCosts& costs, int num_stages) {
  const int blocks = static_cast<int>(costs.blocks.size());
  if (num_stages > blocks + 2) return TooManyStages(num_stages, blocks);
  if (num_stages < 2) return StageLayout{{{0, blocks}}};
  std::vector<double> prefix = {0, costs.embedding};
  for (const double c : costs.blocks) prefix.push_back(prefix.back() + c);
  prefix.push_back(prefix.back() + costs.head);
  // The least limit that can be kept is a sum of neighbouring items.
  std::vector<double> sums;
  for (size_t i = 0; i < prefix.size(); ++i) {
    for (size_t j = i + 1; j < prefix.size(); ++j) sums.push_back(prefix[j] - prefix[i]);
  }
  std::sort(sums.begin(), sums.end());
  const auto any = [](double) { return 0.0; };
  const auto limit = std::partition_point(sums.begin(), sums.end(),
                                          [&](double sum) { return CutRuns(prefix, num_stages, sum, any).empty(); });
  const double slack = *limit * (1 + 1e-9);  // equal sums differ in their last bits
  const std::vector<int> begins = CutRuns(prefix, num_stages, slack, [](double cost) { return cost * cost; });
  StageLayout layout;
  for (int s = 0; s < num_stages; ++s) {
    const int begin = std::max(begins[s] - 1, 0);  // item i is block i - 1
    layout.stages.push_back({begin, s + 1 < num_stages ? std::min(begins[s + 1] - 1, blocks) : blocks});
  }
  return layout;
}

}  // namespace strata
