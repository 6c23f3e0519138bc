#include "parallel/zero/shard_gradients.h"

#include <algorithm>
#include <memory>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/ops/elementwise.h"
#include "core/ops/flat.h"
#include "core/ops/move.h"
#include "core/plan/rewrite.h"
#include "parallel/zero/layouts.h"
#include "parallel/zero/reduce_scatter.h"

namespace strata {
namespace {

struct Gradients {
  std::vector<Value> parts;       // by entry: what a micro-batch adds to its accumulator
  NodeId last = -1;               // the last accumulation
  Phase phase = Phase::kForward;  // the latest of the accumulations
};

// The accumulations of the bucket's entries. Their updates become one, of the flat state.
absl::StatusOr<Gradients> TakeAccumulations(Graph& graph, const Bucket& b) {
  Gradients found;
  for (const Bucket::Entry& e : b.entries) {
    const auto update =
        std::find_if(graph.updates.begin(), graph.updates.end(), [&](const auto& u) { return u.first == e.grad; });
    if (update == graph.updates.end() || graph.nodes[update->second.node].op->name() != "accumulate") {
      return absl::InternalError(absl::StrFormat("%s is not accumulated", graph.states[e.grad].name));
    }
    found.last = std::max(found.last, update->second.node);
    found.phase = std::max(found.phase, graph.nodes[update->second.node].phase);
    found.parts.push_back(graph.nodes[update->second.node].inputs[1]);
    graph.updates.erase(update);
  }
  graph.updates.emplace_back(b.grads, Value{found.last, 0});
  return found;
}

void EmitReduction(Rewrite& r, GraphBuilder& g, const Bucket& b, const Gradients& found, const ZeroOptions& zero,
                   const Mesh& mesh) {
  const EmitLike like(g, r.old().nodes[found.last], "bucket." + b.name, found.phase);
  std::vector<Value> parts;
  std::vector<int64_t> offsets;
  for (size_t i = 0; i < b.entries.size(); ++i) {
    const Layout layout = r.old().spec(found.parts[i]).layout;
    const Value part = r.New(found.parts[i]);
    parts.push_back(b.gradient == DType::kBF16 ? part : Cast(g, part, b.gradient));
    r.SetLayout(parts.back(), layout);
    offsets.push_back(b.entries[i].offset);
  }
  const Value flat =
      WithLayout(g, Pack(g, std::move(parts), std::move(offsets), b.padded, b.gradient), LayoutOn(0, b.reduce_axes));
  const Value sum = Accumulate(g, g.Read(b.grads), ReduceScatter(g, flat, b.grad_axes, zero, mesh));
  r.Replace({found.last, 0}, sum);
  r.SetLayout(sum, g.graph().states[b.grads].spec.layout);
}

}  // namespace

absl::StatusOr<Graph> ShardGradients(Graph graph, std::span<const Bucket> buckets, const ZeroOptions& zero,
                                     const Mesh& mesh) {
  std::vector<std::pair<const Bucket*, Gradients>> work;
  for (const Bucket& b : buckets) {
    if (b.grad_axes == 0) continue;
    ASSIGN_OR_RETURN(Gradients found, TakeAccumulations(graph, b));
    work.emplace_back(&b, std::move(found));
  }
  if (work.empty()) return graph;
  Rewrite r(graph);
  for (const auto& [bucket, found] : work) {
    r.At(found.last,
         [&, bucket = bucket, &found = found](GraphBuilder& g) { EmitReduction(r, g, *bucket, found, zero, mesh); });
  }
  return std::move(r).Run();
}

}  // namespace strata
