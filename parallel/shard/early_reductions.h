#pragma once
// When sums over ranks start.

#include "absl/status/statusor.h"
#include "core/graph/graph.h"

namespace strata {

// Every all-reduce and reduce-scatter of a partial sum stands right behind what makes its input, where that is of the same
// phase and stage: what does not wait for it, such as the weight gradient of the product that made it, can run meanwhile. On a
// local graph, after FuseOps. Values and their bits stay.
absl::StatusOr<Graph> EarlyReductions(const Graph& local);

}  // namespace strata
