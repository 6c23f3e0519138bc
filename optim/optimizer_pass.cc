#include "optim/optimizer_pass.h"

#include <iterator>
#include <map>

#include "core/graph/builder.h"
#include "core/ops/collective.h"
#include "core/ops/elementwise.h"
#include "core/ops/optimizer.h"
#include "optim/groups.h"

namespace strata {
namespace {

AxisSet WithoutSingles(AxisSet axes, const Mesh& mesh) {
  for (int a = 0; a < mesh.num_axes(); ++a) {
    if (mesh.axes()[a].size == 1) axes &= static_cast<AxisSet>(~(1 << a));
  }
  return axes;
}

Value MarkPartial(GraphBuilder& g, Value v, AxisSet axes) {
  for (int a = 0; v.valid() && a < kMaxAxes; ++a) {
    if ((axes >> a & 1) != 0) g.mutable_graph().nodes[v.node].outputs[v.output].layout[a] = Partial();
  }
  return v;
}

AxisSet Without(AxisSet axes, AxisSet others) { return axes & static_cast<AxisSet>(~others); }

// As its shard is: a value of a flat state in the part of it that this rank updates.
Value MarkSharded(GraphBuilder& g, Value v, const Bucket& b) {
  for (int a = 0; v.valid() && a < kMaxAxes; ++a) {
    if ((b.shard_axes >> a & 1) != 0) g.mutable_graph().nodes[v.node].outputs[v.output].layout[a] = Shard(0);
  }
  return v;
}

Value AddTo(GraphBuilder& g, Value sum, Value v) { return sum.valid() ? Add(g, sum, v) : v; }

Value GradNorm(GraphBuilder& g, const Bucketed& b, const Mesh& mesh) {
  std::map<AxisSet, Value> sums;
  for (size_t i = 0; i < b.buckets.size(); ++i) {
    std::map<AxisSet, std::vector<FlatRange>> ranges;
    if (!b.buckets[i].counted) continue;
    for (const Bucket::Entry& e : b.buckets[i].entries) {
      ranges[WithoutSingles(e.model_axes | b.buckets[i].shard_axes, mesh)].push_back({e.offset, e.count});
    }
    for (auto& [axes, r] : ranges) {
      const Value squares = MarkPartial(g, SumSquares(g, b.grads[i], std::move(r)), axes);
      sums[axes] = MarkPartial(g, AddTo(g, sums[axes], squares), axes);
    }
  }
  Value total;
  for (const auto& [axes, sum] : sums) {
    total = AddTo(g, total, axes == 0 ? sum : Convert(g, sum, axes, Partial(), Replicate()));
  }
  if (b.stage_axes != 0) {  // a rank that counts nothing adds zero
    if (!total.valid()) total = SumSquares(g, b.grads[0], {});
    total = Convert(g, total, b.stage_axes, Partial(), Replicate());
  }
  return Sqrt(g, total);
}

// A flat state in the element ranges of the bucket, sharded as its updates are, and every parameter's view of it.
StateId DeclareFlat(GraphBuilder& g, const Bucket& b, Role role, const std::string& what, DType dtype) {
  Layout layout{};
  for (int a = 0; a < kMaxAxes; ++a) {
    if ((b.shard_axes >> a & 1) != 0) layout[a] = Shard(0);
  }
  const StateId flat = g.Declare({"bucket." + b.name + "." + what, role, {dtype, {b.padded}, layout}});
  for (const Bucket::Entry& e : b.entries) {
    const State param = g.graph().states[e.param];
    g.Declare({param.name + "." + what,
               role,
               {dtype, param.spec.shape, param.spec.layout},
               flat,
               e.offset,
               param.model_shape});
  }
  return flat;
}

std::vector<DecayRange> DecayOf(const Graph& graph, const Bucket& b, const OptimConfig& c) {
  std::vector<DecayRange> segments;
  for (const Bucket::Entry& e : b.entries) {
    const double decay = WeightDecay(c, graph.states[e.param].name);
    if (decay != 0) segments.push_back({{e.offset, e.count}, decay});
  }
  return segments;
}

// What an update reads and writes: the weights in the accumulator dtype, and the bf16 live ones where those are a master.
struct Weights {
  StateId master = -1;  // -1: the live weights are updated themselves
  Value whole, live{};
};

// This rank's part of the live weights: a slice of them in place.
Value LiveShard(GraphBuilder& g, const Bucket& b) {
  const Value live = g.Read(b.params);
  const AxisSet axes = Without(b.shard_axes, b.weight_axes);
  return axes == 0 ? live : Convert(g, live, axes, Replicate(), Shard(0), CollectiveOp::Storage::kInPlace);
}

Weights WeightsOf(GraphBuilder& g, const Bucket& b, MasterFormat format) {
  if (b.live == AccumulatorOf(b.live)) return {.whole = LiveShard(g, b)};
  const DType dtype = format == MasterFormat::kSplit ? DType::kLow16 : AccumulatorOf(b.live);
  const StateId master = DeclareFlat(g, b, Role::kMaster, "master", dtype);
  return {.master = master, .whole = g.Read(master), .live = LiveShard(g, b)};
}

// The live weights are gathered in place from the ranks' parts.
void UpdateWeights(GraphBuilder& g, const Bucket& b, const Weights& w, Value whole, Value live) {
  if (w.master >= 0) g.Update(w.master, MarkSharded(g, whole, b));
  const Value part = MarkSharded(g, w.master >= 0 ? live : whole, b);
  const AxisSet axes = Without(b.shard_axes, b.weight_axes);
  g.Update(b.params, axes == 0 ? part : Convert(g, part, axes, Shard(0), Replicate(), CollectiveOp::Storage::kInPlace));
}

void AppendAdamW(GraphBuilder& g, const Bucket& b, Value grads, Value norm, const OptimConfig& c, MasterFormat format) {
  const AdamWSpec spec{
      .beta1 = c.beta1, .beta2 = c.beta2, .eps = c.eps, .max_norm = c.clip, .segments = DecayOf(g.graph(), b, c)};
  const DType sums = AccumulatorOf(b.live);
  const StateId m = DeclareFlat(g, b, Role::kMoment1, "exp_avg", sums);
  const StateId v = DeclareFlat(g, b, Role::kMoment2, "exp_avg_sq", sums);
  const Weights w = WeightsOf(g, b, format);
  const AdamWResults next = AdamW(
      g, spec, {.weights = w.whole, .grads = grads, .m = g.Read(m), .v = g.Read(v), .norm = norm, .live = w.live});
  UpdateWeights(g, b, w, next.weights, next.live);
  g.Update(m, MarkSharded(g, next.m, b));
  g.Update(v, MarkSharded(g, next.v, b));
}

void AppendSgd(GraphBuilder& g, const Bucket& b, Value grads, Value norm, const OptimConfig& c, MasterFormat format) {
  const SgdSpec spec{
      .momentum = c.momentum, .max_norm = c.clip, .nesterov = c.nesterov, .segments = DecayOf(g.graph(), b, c)};
  const StateId u = DeclareFlat(g, b, Role::kMoment1, "momentum", AccumulatorOf(b.live));
  const Weights w = WeightsOf(g, b, format);
  const SgdResults next =
      Sgd(g, spec, {.weights = w.whole, .grads = grads, .u = g.Read(u), .norm = norm, .live = w.live});
  UpdateWeights(g, b, w, next.weights, next.live);
  g.Update(u, MarkSharded(g, next.u, b));
}

using Append = void (*)(GraphBuilder&, const Bucket&, Value grads, Value norm, const OptimConfig&, MasterFormat);
constexpr Append kUpdates[] = {AppendAdamW, AppendSgd};  // by OptimizerType
static_assert(std::size(kUpdates) == std::size(kOptimizerTypeNames));

}  // namespace

absl::StatusOr<Graph> ApplyOptimizer(Bucketed bucketed, const Mesh& mesh, const OptimConfig& config, Value loss,
                                     MasterFormat master) {
  GraphBuilder g(std::move(bucketed.graph));
  g.set_phase(Phase::kStep);
  g.Push("grad_norm");
  Value norm = GradNorm(g, bucketed, mesh);
  g.Output("grad_norm", norm);
  if (loss.valid()) {
    norm = Guard(g, norm, loss);
    g.Output("guarded_norm", norm);
  }
  g.Pop();
  for (size_t i = 0; i < bucketed.buckets.size(); ++i) {
    g.Push("bucket." + bucketed.buckets[i].name);
    kUpdates[static_cast<size_t>(config.type)](g, bucketed.buckets[i], bucketed.grads[i], norm, config, master);
    g.Pop();
  }
  return std::move(g).Build();
}

}  // namespace strata
