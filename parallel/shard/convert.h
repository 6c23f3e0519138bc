#pragma once
// Conversions between placements: which exist, what they cost, and the cheapest legal order of them over several axes.

#include <vector>

#include "absl/status/statusor.h"
#include "core/graph/graph.h"
#include "core/mesh/mesh.h"
#include "parallel/shard/options.h"

namespace strata {

// S->R all-gather, P->R all-reduce, P->S reduce-scatter, R->S slice, Si->Sj all-to-all. Nothing becomes Partial, and a
// Partial(max) is only all-reduced. `IsStep`: in one conversion. `IsConvertible`: in one, or through Replicate; true of
// equal placements.
bool IsStep(Placement from, Placement to);
bool IsConvertible(Placement from, Placement to);

// Bytes that one of n ranks sends to convert, in one step, a tensor of `bytes` as it is where not sharded on this axis.
double StepBytes(Placement from, Placement to, double bytes, int n);
// Seconds of a conversion on one axis of n ranks; the placements must be convertible.
double ConversionSeconds(Placement from, Placement to, double bytes, int n, const ShardOptions& options);

// One collective (or slice) over a set of axes, all of which go from `from` to `to`.
struct ConversionStep {
  AxisSet axes = 0;
  Placement from, to;
};
struct Route {
  double seconds = 0;
  std::vector<ConversionStep> steps;
};

// The cheapest route (Dijkstra over layouts; a step may pass through Replicate). A dim that several axes
// shard is nested in mesh order, so the inner axis leaves first and enters last. Equal consecutive steps over different
// axes are merged into one over the product group. Ties break on axis order, so every rank finds the same route.
// Errors: InvalidArgument if there is none (something would have to become Partial).
absl::StatusOr<Route> FindRoute(const TensorSpec& spec, const Layout& from, const Layout& to, const Mesh& mesh,
                                const ShardOptions& options);

// How to make copies of a value that is `from` in all of `wanted` (distinct, none is `from`) in the least time: for
// each the index of the copy that it is converted from, -1 for the value itself. "All-reduce, then slice" beats
// "reduce-scatter, then gather" where both results are wanted. Errors: as FindRoute.
absl::StatusOr<std::vector<int>> PlanCopies(const TensorSpec& spec, const Layout& from,
                                            const std::vector<Layout>& wanted, const Mesh& mesh,
                                            const ShardOptions& options);

}  // namespace strata
