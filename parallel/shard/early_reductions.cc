#include "parallel/shard/early_reductions.h"

#include <map>
#include <string_view>

#include "core/graph/op.h"
#include "core/ops/collective.h"
#include "core/plan/rewrite.h"

namespace strata {
namespace {

struct InputGradient {
  std::string_view op;
  int dy = 0;  // which input
};
constexpr InputGradient kInputGradients[] = {{"linear_dx"},        {"linear_packed_dx"}, {"linear_dx_add"},
                                             {"linear_dx_swiglu"}, {"linear_dx_gelu"},   {"linear_dx_gelu_acc", 1}};

bool SameStage(const Node& a, const Node& b) { return a.stage == b.stage && a.replica == b.replica; }

// Before node `at`, in its stage.
void Hoist(Rewrite& r, NodeId id, NodeId at) {
  if (at >= id || !SameStage(r.old().nodes[at], r.old().nodes[id])) return;
  r.At(at, [&r, id](GraphBuilder&) { r.New(Value{id, 0}); });
}

void HoistReduction(Rewrite& r, NodeId id) {
  const Node& n = r.old().nodes[id];
  const CollectiveOp* call = AsCollective(n);
  // In place it would clobber what others still read.
  if (call == nullptr || call->from() != Partial() || call->in_place() || n.phase >= Phase::kUnshard) return;
  const NodeId maker = n.inputs[0].node;
  if (r.old().nodes[maker].phase == n.phase && SameStage(r.old().nodes[maker], n)) Hoist(r, id, maker + 1);
}

}  // namespace

absl::StatusOr<Graph> EarlyReductions(const Graph& local) {
  Rewrite r(local);
  std::map<Value, NodeId> dx;  // by the gradient of the product
  for (NodeId id = 0; id < static_cast<NodeId>(local.nodes.size()); ++id) {
    HoistReduction(r, id);
    const Node& n = local.nodes[id];
    const std::string_view op = n.op->name();
    for (const InputGradient& d : kInputGradients) {
      if (d.op == op) dx[n.inputs[d.dy]] = id;
    }
    if (op != "linear_dw" && op != "linear_dw_acc") continue;
    const Value x = n.inputs.back(), dy = n.inputs[n.inputs.size() - 2];
    const CollectiveOp* call = AsCollective(local.nodes[x.node]);
    const auto product = dx.find(dy);
    if (call == nullptr || call->kind() != CollectiveOp::Kind::kAllGather || product == dx.end()) continue;
    if (local.nodes[x.node].inputs[0].node < product->second) Hoist(r, x.node, product->second);
  }
  return std::move(r).Run();
}

}  // namespace strata
