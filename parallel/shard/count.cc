#include "parallel/shard/count.h"

#include <map>
#include <tuple>

#include "absl/strings/str_format.h"
#include "core/comm/communicator.h"

namespace strata {
namespace {

constexpr Collective::Kind kCollective[] = {Collective::kAllReduce, Collective::kAllGather, Collective::kReduceScatter,
                                            Collective::kAllToAll};

}  // namespace

std::vector<CollectiveTotal> CountCollectives(const Graph& graph, const Mesh& mesh, int block) {
  std::map<std::tuple<Phase, AxisSet, CollectiveOp::Kind>, CollectiveTotal> totals;
  for (const Node& n : graph.nodes) {
    const CollectiveOp* op = AsCollective(n);
    if (op == nullptr || op->kind() == CollectiveOp::Kind::kSlice || (block >= 0 && n.block != block)) continue;
    const TensorSpec& in = graph.spec(n.inputs[0]);
    Collective call;
    call.kind = kCollective[static_cast<int>(op->kind())];
    call.dtype = in.dtype;
    if (const auto box = LocalBoxOf(in.shape, in.layout, mesh); box.ok()) call.count = box->shape.elements();
    CollectiveTotal& t = totals[{n.phase, op->axes(), op->kind()}];
    t.phase = n.phase;
    t.kind = op->kind();
    t.axes = op->axes();
    ++t.count;
    t.bytes += BytesSent(call, static_cast<int>(op->Ranks(mesh).size()));
  }
  std::vector<CollectiveTotal> list;
  for (const auto& [key, t] : totals) list.push_back(t);
  return list;
}

std::string ToString(const std::vector<CollectiveTotal>& totals, const Mesh& mesh) {
  std::string text;
  for (const CollectiveTotal& t : totals) {
    absl::StrAppendFormat(&text, "%s %s %s %d (%.0f B)\n", Name(t.phase), mesh.Name(t.axes),
                          CollectiveOp(t.kind, 0, {}, {}).name(), t.count, t.bytes);
  }
  return text;
}

}  // namespace strata
