#pragma once
// Runs a sharded graph on thread ranks, and puts values together again from their local parts.

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/graph/graph.h"
#include "tests/testing/interpreter.h"

namespace strata::testing {

// The part of a whole tensor that the mesh's rank holds. Of a sum the first rank has the rest, others ones; of a max
// the first has the whole, others less.
absl::StatusOr<Tensor> LocalPart(const Tensor& whole, const Layout& layout, const Mesh& mesh);

// The whole tensor from all ranks' parts. Errors: Internal if what is Replicate differs in a bit between ranks.
absl::StatusOr<Tensor> Reassemble(const std::vector<Tensor>& parts, const TensorSpec& spec,
                                  const std::vector<MeshAxis>& axes);

// Every value of `graph` by [rank][node][output], from whole bindings.
using RankValues = std::vector<std::vector<std::vector<Tensor>>>;
absl::StatusOr<RankValues> RunSharded(const Graph& graph, const std::vector<MeshAxis>& axes,
                                      const std::map<std::string, Tensor>& bindings);

// Runs `global` on one rank and `sharded`, made of it without expansions, on all; reassembles every value of `sharded`,
// conversions included, and returns the largest difference to one rank, relative to the largest element of a value.
absl::StatusOr<double> WorstDifference(const Graph& global, const Graph& sharded, const std::vector<MeshAxis>& axes,
                                       const std::map<std::string, Tensor>& bindings);

}  // namespace strata::testing
