#include "parallel/shard/early_reductions.h"

#include "core/ops/collective.h"
#include "core/plan/rewrite.h"

namespace strata {
namespace {

bool Together(const Node& a, const Node& b) {
  return a.phase == b.phase && a.stage == b.stage && a.replica == b.replica;
}

}  // namespace

absl::StatusOr<Graph> EarlyReductions(const Graph& local) {
  Rewrite r(local);
  for (NodeId id = 0; id < static_cast<NodeId>(local.nodes.size()); ++id) {
    const Node& n = local.nodes[id];
    const CollectiveOp* call = AsCollective(n);
    // In place it would clobber what others still read.
    if (call == nullptr || call->from() != Partial() || call->in_place() || n.phase >= Phase::kUnshard) continue;
    const NodeId next = n.inputs[0].node + 1;
    if (next >= id || !Together(local.nodes[next - 1], n) || local.nodes[next].stage != n.stage ||
        local.nodes[next].replica != n.replica) {
      continue;
    }
    r.At(next, [&r, id](GraphBuilder&) { r.New(Value{id, 0}); });
  }
  return std::move(r).Run();
}

}  // namespace strata
