#include "tests/testing/sharded_run.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/graph/op.h"
#include "core/ops/collective.h"
#include "parallel/comm/thread_world.h"

namespace strata::testing {
namespace {

int RanksOf(const std::vector<MeshAxis>& axes) {
  int ranks = 1;
  for (const MeshAxis& a : axes) ranks *= a.size;
  return ranks;
}

// Index in a tensor of shape `whole` of element i of the box.
int64_t IndexInWhole(int64_t i, const LocalBox& box, const Shape& whole) {
  int64_t index = 0, stride = 1;
  for (int d = whole.rank - 1; d >= 0; --d) {
    index += (box.origin[d] + i % box.shape[d]) * stride;
    stride *= whole[d];
    i /= box.shape[d];
  }
  return index;
}

bool HasMax(const Layout& layout) {
  return std::any_of(layout.begin(), layout.end(), [](Placement p) { return p == Partial(ReduceOp::kMax); });
}

}  // namespace

absl::StatusOr<Tensor> LocalPart(const Tensor& whole, const Layout& layout, const Mesh& mesh) {
  ASSIGN_OR_RETURN(const LocalBox box, LocalBoxOf(whole.shape, layout, mesh));
  Tensor t = Tensor::Zeros(whole.dtype, box.shape);
  bool first = true;  // of the ranks that share a partial value
  int shares = 1;
  for (int a = 0; a < mesh.num_axes(); ++a) {
    if (!layout[a].is_partial()) continue;
    first &= mesh.Coord(a) == 0;
    shares *= mesh.axes()[a].size;
  }
  const bool max = HasMax(layout);
  for (int64_t i = 0; i < t.size(); ++i) {
    const double x = whole.at(IndexInWhole(i, box, whole.shape));
    if (max)
      t.set(i, first ? x : x - 1);
    else
      t.set(i, first ? x - (shares - 1) : 1);
  }
  return t;
}

absl::StatusOr<Tensor> Reassemble(const std::vector<Tensor>& parts, const TensorSpec& spec,
                                  const std::vector<MeshAxis>& axes) {
  Tensor whole = Tensor::Zeros(spec.dtype, spec.shape);
  const bool max = HasMax(spec.layout);
  for (int64_t i = 0; max && i < whole.size(); ++i) whole.set(i, -std::numeric_limits<double>::infinity());
  const int ranks = static_cast<int>(parts.size());
  for (int r = 0; r < ranks; ++r) {
    ASSIGN_OR_RETURN(const Mesh mesh, Mesh::Make(axes, ranks, r));
    ASSIGN_OR_RETURN(const LocalBox box, LocalBoxOf(spec.shape, spec.layout, mesh));
    if (parts[r].shape != box.shape) return absl::InternalError("a part has another shape than its layout says");
    int first = r, stride = 1;  // the rank at coordinate 0 of the axes that replicate
    for (int a = mesh.num_axes() - 1; a >= 0; --a) {
      if (spec.layout[a].is_replicate()) first -= mesh.Coord(a) * stride;
      stride *= axes[a].size;
    }
    if (first != r) {
      if (parts[r].data != parts[first].data) {
        return absl::InternalError(absl::StrFormat("Replicate, but ranks %d and %d differ", first, r));
      }
      continue;
    }
    for (int64_t i = 0; i < parts[r].size(); ++i) {
      const int64_t at = IndexInWhole(i, box, spec.shape);
      whole.set(at, max ? std::max(whole.at(at), parts[r].at(i)) : whole.at(at) + parts[r].at(i));
    }
  }
  return whole;
}

absl::StatusOr<RankValues> RunSharded(const Graph& graph, const std::vector<MeshAxis>& axes,
                                      const std::map<std::string, Tensor>& bindings) {
  const int ranks = RanksOf(axes);
  RankValues values(ranks);
  RETURN_IF_ERROR(RunRanks(ranks, [&](World& world) -> absl::Status {
    ASSIGN_OR_RETURN(const Mesh mesh, Mesh::Make(axes, ranks, world.rank()));
    std::map<std::string, Tensor> local;
    for (const auto& [name, v] : graph.inputs) {
      ASSIGN_OR_RETURN(local[name], LocalPart(bindings.at(name), graph.spec(v).layout, mesh));
    }
    for (const State& s : graph.states) {
      ASSIGN_OR_RETURN(local[s.name], LocalPart(bindings.at(s.name), s.spec.layout, mesh));
    }
    EvalOptions options;
    options.mesh = &mesh;
    options.world = &world;
    ASSIGN_OR_RETURN(values[world.rank()], Evaluate(graph, local, options));
    return absl::OkStatus();
  }));
  return values;
}

absl::StatusOr<double> WorstDifference(const Graph& global, const Graph& sharded, const std::vector<MeshAxis>& axes,
                                       const std::map<std::string, Tensor>& bindings) {
  std::map<std::string, Tensor> one = bindings;
  ASSIGN_OR_RETURN(const auto want, Evaluate(global, one));
  ASSIGN_OR_RETURN(const RankValues have, RunSharded(sharded, axes, bindings));
  std::vector<Value> same;  // output 0 of the node of `global` that node i is, or the value that it converts
  NodeId next = 0;
  double worst = 0;
  for (size_t i = 0; i < sharded.nodes.size(); ++i) {
    const Node& n = sharded.nodes[i];
    const bool converts = AsCollective(n) != nullptr;
    if (converts) {
      const Value of = n.inputs[0];
      same.push_back({same[of.node].node, same[of.node].output + of.output});
    } else {
      same.push_back({next++, 0});
    }
    for (size_t k = 0; k < n.outputs.size(); ++k) {
      const Tensor& expected = want[same[i].node][same[i].output + k];
      std::vector<Tensor> parts;
      for (const auto& rank : have) parts.push_back(rank[i][k]);
      absl::StatusOr<Tensor> whole = Reassemble(parts, n.outputs[k], axes);
      if (!whole.ok()) return Annotate(whole.status(), absl::StrFormat("%%%d %s in %s", i, n.op->name(), n.scope));
      if (whole->shape != expected.shape) return absl::InternalError("the graphs do not correspond");
      const double difference = MaxAbsDiff(*whole, expected) / std::max(MaxAbs(expected), 1e-30);
      if (!(difference < 1e-6)) {
        return absl::InternalError(absl::StrFormat("%%%d %s in %s is off by %g", i, n.op->name(), n.scope, difference));
      }
      worst = std::max(worst, difference);
    }
  }
  if (next != static_cast<NodeId>(global.nodes.size())) return absl::InternalError("the graphs do not correspond");
  return worst;
}

}  // namespace strata::testing
