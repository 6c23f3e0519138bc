#pragma once
// Chooses one row a site on one axis: least communication plus matmul and attention time, exactly.

#include <vector>

#include "absl/status/statusor.h"
#include "parallel/shard/candidates.h"
#include "parallel/shard/options.h"

namespace strata {

// What the forward part converts is a copy of its own, unless it is kept for the backward part. One conversion serves
// all consumers of a value in one scope.
int CopyScope(const Graph& graph, Value v, Phase consumer, const ShardOptions& options);

// Row index by site. First drops rows that no neighbour can serve (arc consistency), then minimizes over the rest by
// variable elimination, with one more variable a shared value: the set of placements that copies of it are made in.
// Errors: InvalidArgument names a node that cannot be placed, with shapes and source line.
absl::StatusOr<std::vector<Row>> SolveAxis(AxisSites& axis, const ChosenLayouts& chosen, const ShardOptions& options);

}  // namespace strata
