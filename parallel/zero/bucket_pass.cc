#include "parallel/zero/bucket_pass.h"

#include <algorithm>
#include <set>
#include <tuple>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/graph/builder.h"
#include "core/ops/collective.h"
#include "parallel/zero/gather_weights.h"
#include "parallel/zero/layouts.h"
#include "parallel/zero/reduce_scatter.h"
#include "parallel/zero/shard_gradients.h"

namespace strata {
namespace {

constexpr int64_t kBucketAlignment = 128;  // elements
int64_t AlignTo(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

AxisSet AxesWhere(const Layout& layout, Placement::Kind kind) {
  AxisSet axes = 0;
  for (int a = 0; a < kMaxAxes; ++a) {
    if (layout[a].kind == kind) axes |= static_cast<AxisSet>(1 << a);
  }
  return axes;
}

std::map<std::string, StateId> StatesByName(const Graph& g) {
  std::map<std::string, StateId> ids;
  for (size_t i = 0; i < g.states.size(); ++i) ids[g.states[i].name] = static_cast<StateId>(i);
  return ids;
}

// What its reads say of a parameter.
struct Use {
  std::string group;  // BucketName
  int16_t stage = 0, replica = 0;
  bool at_end = false;  // as of StageOwners
};
std::map<StateId, Use> UsesOf(const Graph& g, const StageOwners& owners) {
  std::map<StateId, Use> uses;
  for (const Node& n : g.nodes) {
    const ReadOp* read = AsRead(n);
    if (read == nullptr) continue;
    const std::string& state = g.states[read->state()].name;
    const std::string group = BucketName(n, state);
    const auto owned = owners.params.find(state);
    const bool at_end = owned != owners.params.end() && owned->second.at_end;
    uses.try_emplace(read->state(), at_end ? Use{group, 0, 0, true} : Use{group, n.stage, n.replica});
  }
  return uses;
}

// Nodes from `first` on are of the stage that the bucket is used in, unless they wait for several.
void SetStage(GraphBuilder& g, size_t first, const Use& use) {
  if (use.at_end) return;
  for (size_t i = first; i < g.graph().nodes.size(); ++i) {
    Node& node = g.mutable_graph().nodes[i];
    node.phase = Phase::kReduce;
    node.stage = use.stage;
    node.replica = use.replica;
  }
}

// The all-reduced value of a state that is Partial on `axes`, in the state's own storage: what it held is used up, and the
// next step's first micro-batch overwrites it.
Value Reduced(GraphBuilder& g, StateId state, AxisSet axes) {
  const Value v = g.Read(state);
  return axes == 0 ? v : Convert(g, v, axes, Partial(), Replicate(), CollectiveOp::Storage::kInPlace);
}

// The step's gradient of a bucket: this rank's shard, then summed over the axes that do not shard it, on which it is small
// already.
Value ReducedGrads(GraphBuilder& g, const Bucket& b, const ZeroOptions& zero, const Mesh& mesh) {
  Value v = g.Read(b.grads);
  const AxisSet scatter = Without(b.shard_axes, b.grad_axes), rest = Without(b.reduce_axes, b.shard_axes);
  if (scatter != 0) v = ReduceScatter(g, v, scatter, zero, mesh);
  if (rest != 0) v = Convert(g, v, rest, Partial(), Replicate(), CollectiveOp::Storage::kInPlace);
  return v;
}

struct Made {
  std::vector<Bucket> buckets;
  std::vector<Use> uses;  // by bucket
};
absl::StatusOr<Made> MakeBuckets(const Graph& local, const Mesh& mesh, const ZeroOptions& zero,
                                 const StageOwners& owners) {
  const std::map<std::string, StateId> ids = StatesByName(local);
  const std::map<StateId, Use> by_param = UsesOf(local, owners);
  const std::vector<int> ranks = mesh.Group(owners.axes);
  const int here = static_cast<int>(std::find(ranks.begin(), ranks.end(), mesh.rank()) - ranks.begin());
  Made made;
  std::vector<Bucket>& buckets = made.buckets;
  const std::set<StateId> forward_only = zero.gradients != 0 ? ForwardOnly(local) : std::set<StateId>{};
  using Key = std::tuple<std::string, DType, DType, AxisSet, int16_t, int16_t, bool, bool, std::vector<int>>;
  std::map<Key, size_t> index;
  for (size_t i = 0; i < local.states.size(); ++i) {
    const State& param = local.states[i];
    const auto grad = ids.find("grad." + param.name);
    if (param.role != Role::kParam || grad == ids.end()) continue;
    const AxisSet reduce = AxesWhere(local.states[grad->second].spec.layout, Placement::kPartial);
    const DType gradient = local.states[grad->second].spec.dtype;
    const Use& use = by_param.at(static_cast<StateId>(i));
    const auto owned = owners.params.find(param.name);
    std::vector<int> holders = owned == owners.params.end() ? std::vector<int>{} : owned->second.ranks;
    const bool alone = !use.at_end && forward_only.contains(static_cast<StateId>(i));
    const auto [at, fresh] = index.try_emplace(
        {use.group, param.spec.dtype, gradient, reduce, use.stage, use.replica, use.at_end, alone, holders},
        buckets.size());
    if (fresh) {
      made.uses.push_back(use);
      const AxisSet shards = use.at_end ? AxisSet{0} : reduce;  // of what several stages add to, only the states
      buckets.push_back({.name = use.group,
                         .group = use.group,
                         .live = param.spec.dtype,
                         .gradient = gradient,
                         .reduce_axes = reduce,
                         .shard_axes = static_cast<AxisSet>(zero.states & reduce),
                         .grad_axes = static_cast<AxisSet>(zero.gradients & shards),
                         .weight_axes = static_cast<AxisSet>(zero.weights & shards),
                         .counted = holders.empty() || holders[0] == here});
      if (holders.size() > 1) buckets.back().owners = std::move(holders);
    }
    Bucket& b = buckets[at->second];
    ASSIGN_OR_RETURN(const LocalBox box, LocalBoxOf(param.spec.shape, param.spec.layout, mesh));
    const int64_t offset = NextOffset(b.padded), count = box.shape.elements();
    b.entries.push_back(
        {static_cast<StateId>(i), grad->second, offset, count, AxesWhere(param.spec.layout, Placement::kShard)});
    b.padded = offset + count;
  }
  std::map<std::string, int> used;
  for (Bucket& b : buckets) {
    if (const int n = used[b.name]++; n > 0) b.name += absl::StrFormat(".%d", n);
    const bool quantised = zero.weight_bits.has_value() || zero.gradient_bits.has_value();
    b.padded = AlignTo(b.padded, (quantised ? kQuantBlock : kBucketAlignment) * mesh.size(b.shard_axes));
  }
  return made;
}

// The flat states; parameters and accumulators become views of them.
absl::StatusOr<Graph> DeclareFlat(Graph local, std::vector<Bucket>& buckets) {
  GraphBuilder g(std::move(local));
  for (Bucket& b : buckets) {
    const std::string name = "bucket." + b.name;
    b.params = g.Declare({name + ".params", Role::kParam, {b.live, {b.padded}, LayoutOn(b.weight_axes, 0)}});
    b.grads = g.Declare({name + ".grads", Role::kGrad, {b.gradient, {b.padded}, LayoutOn(b.grad_axes, b.reduce_axes)}});
    for (const Bucket::Entry& e : b.entries) {
      for (const auto& [view, flat] : {std::pair(e.param, b.params), std::pair(e.grad, b.grads)}) {
        g.mutable_graph().states[view].storage = flat;
        g.mutable_graph().states[view].storage_offset = e.offset;
      }
    }
  }
  return std::move(g).Build();
}

}  // namespace

absl::StatusOr<Bucketed> BucketPass(Graph local, const Mesh& mesh, const ZeroOptions& zero, const StageOwners& owners) {
  Bucketed result;
  ASSIGN_OR_RETURN(Made made, MakeBuckets(local, mesh, zero, owners));
  result.buckets = std::move(made.buckets);
  result.stage_axes = owners.axes;
  ASSIGN_OR_RETURN(local, DeclareFlat(std::move(local), result.buckets));
  ASSIGN_OR_RETURN(local, ShardGradients(std::move(local), result.buckets, zero, mesh));
  const std::vector<FlatWeights> weights = FlatWeightsOf(local, result.buckets);
  ASSIGN_OR_RETURN(local, GatherWeights(std::move(local), weights, zero));

  GraphBuilder g(std::move(local));
  g.set_phase(Phase::kStep);
  for (size_t i = 0; i < result.buckets.size(); ++i) {
    const Bucket& b = result.buckets[i];
    const size_t first = g.graph().nodes.size();
    g.Push("bucket." + b.name);
    Value reduced = ReducedGrads(g, b, zero, mesh);
    if (!b.owners.empty()) reduced = SumOverOwners(g, reduced, owners.axes, b.owners);
    result.grads.push_back(reduced);
    g.Pop();
    SetStage(g, first, made.uses[i]);
  }
  ASSIGN_OR_RETURN(result.graph, std::move(g).Build());
  return result;
}

absl::StatusOr<Graph> ReduceBuffers(Graph local, AxisSet stage_axes) {
  GraphBuilder g(std::move(local));
  g.set_phase(Phase::kStep);
  for (size_t i = 0; i < g.graph().states.size(); ++i) {
    const State s = g.graph().states[i];
    if (s.role != Role::kBuffer) continue;
    g.Push(s.name);
    Value sum = Reduced(g, static_cast<StateId>(i), AxesWhere(s.spec.layout, Placement::kPartial));
    // Not in place: a rank without such a sum adds the zero of its state, at every step.
    if (stage_axes != 0) sum = Convert(g, sum, stage_axes, Partial(), Replicate());
    g.Output(s.name, sum);
    g.Pop();
  }
  return std::move(g).Build();
}

}  // namespace strata
