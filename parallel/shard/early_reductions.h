#pragma once
// Where sums over ranks stand among the products of a backward pass, so that they can run beside them.

#include "absl/status/statusor.h"
#include "core/graph/graph.h"

namespace strata {

// On a local graph, after FuseOps; values and their bits stay.
// - Every all-reduce and reduce-scatter of a partial sum stands right behind what makes its input, where that is of the same
//   phase and stage: the weight gradient of a product does not come between its dx and the reduction of dx.
// - An all-gather of what a weight gradient reads stands before the dx of the same product: behind it, the weight gradient
//   would wait for the reduction too, which is on the same communicator.
absl::StatusOr<Graph> EarlyReductions(const Graph& local);

}  // namespace strata
