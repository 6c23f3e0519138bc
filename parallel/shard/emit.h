#pragma once
// Writes the sharded graph, once every site's placements are chosen on all axes: copies the nodes, sets layouts and
// inserts conversions, each made once per (value, layout, scope).

#include <vector>

#include "absl/status/statusor.h"
#include "parallel/shard/candidates.h"
#include "parallel/shard/options.h"

namespace strata {

struct Expansion {
  int axis, rule;
};
struct ShardedChoice {
  ChosenLayouts layouts;                           // by site
  std::vector<std::vector<Expansion>> expansions;  // by site: rows that replace the node
};

// Errors: Unimplemented if one node is to be expanded on two axes; what an expansion returns.
absl::StatusOr<Graph> EmitSharded(const ShardFacts& facts, const ShardedChoice& choice, const ShardOptions& options);

}  // namespace strata
