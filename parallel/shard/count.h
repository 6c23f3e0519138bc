#pragma once
// What a sharded graph communicates: for golden tests and for `strata plan`.

#include <string>
#include <vector>

#include "core/graph/graph.h"
#include "core/ops/collective.h"

namespace strata {

// Collectives of one phase, kind and axis set; slices are left out.
struct CollectiveTotal {
  Phase phase = Phase::kForward;
  CollectiveOp::Kind kind{};
  AxisSet axes = 0;
  int count = 0;
  double bytes = 0;  // sent by one rank, by BytesSent (core/comm/communicator.h)
};

// Sorted by phase, axes and kind. block >= 0: of that transformer block alone.
std::vector<CollectiveTotal> CountCollectives(const Graph& graph, const Mesh& mesh, int block = -1);

// "F tp all_reduce 4 (8192 B)", one line each.
std::string ToString(const std::vector<CollectiveTotal>& totals, const Mesh& mesh);

}  // namespace strata
