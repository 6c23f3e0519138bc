#pragma once
// Which transformer blocks each pipeline stage has. The embedding is in the first stage, the head in the last one; blocks
// are in order and none is left out, but their number may differ from stage to stage. Values.

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "core/graph/graph.h"

namespace strata {

struct StageLayout {
  struct Blocks {  // [first, end); empty is legal in the first and the last stage
    int first = 0, end = 0;
    bool operator==(const Blocks&) const = default;
  };
  std::vector<Blocks> stages;

  int num_stages() const { return static_cast<int>(stages.size()); }
  int num_blocks() const { return stages.empty() ? 0 : stages.back().end; }
  int StageOf(int block) const;
  bool operator==(const StageLayout&) const = default;
};

// "E,0-3 | 4-7 | 8-10 | 11,H": stages from first to last; E is the embedding, H the head.
std::string ToString(const StageLayout& layout);
// Errors: InvalidArgument for a text that is not such a list, has not `num_stages` stages, or does not have each of
// `num_blocks` blocks once and in order; it names a layout that would do.
absl::StatusOr<StageLayout> ParseStageLayout(std::string_view text, int num_blocks, int num_stages);

// Work by part of the model, in any unit.
struct ModelCosts {
  double embedding = 0, head = 0;
  std::vector<double> blocks;
};

// By Op::Flops over all nodes of a training graph (forward and backward, one micro-batch, fused ops decomposed).
ModelCosts CostsOf(const Graph& train);

// The layout whose slowest stage is fastest; of several, the most even one. Errors: InvalidArgument where there are more
// stages than blocks + 2.
absl::StatusOr<StageLayout> BalancedLayout(const ModelCosts& costs, int num_stages);

}  // namespace strata
