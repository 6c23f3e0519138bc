#include "parallel/zero/gather_weights.h"

#include <algorithm>
#include <map>
#include <memory>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/ops/collective.h"
#include "core/ops/flat.h"
#include "core/plan/rewrite.h"
#include "parallel/zero/layouts.h"

namespace strata {
namespace {

enum Pass : uint8_t { kForwardPass, kBackwardPass };  // a step is F, B (I and W), and the update, which has its shards

// A bucket in one pass.
struct Use {
  size_t bucket;
  NodeId first, last;  // nodes that read its parameters
};

struct Reads {
  std::vector<std::vector<Value>> by_bucket;  // values that are a parameter of it ...
  std::vector<std::vector<size_t>> entry;     // ... and which
  std::vector<Use> passes[2];                 // in order of first use
};

absl::StatusOr<Reads> FindReads(const Graph& graph, std::span<const ShardedWeights> weights) {
  std::map<std::string, std::pair<size_t, size_t>> parameters;
  for (size_t b = 0; b < weights.size(); ++b) {
    for (size_t e = 0; e < weights[b].entries.size(); ++e) parameters[weights[b].entries[e].parameter] = {b, e};
  }
  Reads reads;
  reads.by_bucket.resize(weights.size());
  reads.entry.resize(weights.size());
  std::map<NodeId, size_t> bucket_of;
  std::map<size_t, Use> uses[2];
  NodeId last_forward = -1, first_backward = static_cast<NodeId>(graph.nodes.size());
  for (NodeId id = 0; id < static_cast<NodeId>(graph.nodes.size()); ++id) {
    const Node& n = graph.nodes[id];
    if (const ReadOp* read = AsRead(n)) {
      const auto it = parameters.find(graph.states[read->state()].name);
      if (it == parameters.end()) continue;
      reads.by_bucket[it->second.first].push_back({id, 0});
      reads.entry[it->second.first].push_back(it->second.second);
      bucket_of[id] = it->second.first;
    }
    for (Value v : n.inputs) {
      const auto it = bucket_of.find(v.node);
      if (it == bucket_of.end()) continue;
      if (n.phase == Phase::kStep) return absl::InternalError(n.scope + ": a parameter is read in the step phase");
      const Pass pass = n.phase == Phase::kForward ? kForwardPass : kBackwardPass;
      if (pass == kForwardPass) last_forward = id;
      if (pass == kBackwardPass) first_backward = std::min(first_backward, id);
      uses[pass].try_emplace(it->second, Use{it->second, id, id}).first->second.last = id;
    }
  }
  if (last_forward > first_backward) return absl::InternalError("forward nodes follow backward nodes");
  for (const Pass pass : {kForwardPass, kBackwardPass}) {
    for (const auto& [bucket, use] : uses[pass]) reads.passes[pass].push_back(use);
    std::sort(reads.passes[pass].begin(), reads.passes[pass].end(),
              [](const Use& a, const Use& b) { return a.first < b.first; });
  }
  return reads;
}

// All weights of a bucket, from the shards.
Value Gathered(GraphBuilder& g, const ShardedWeights& w, const ZeroOptions& zero) {
  const Value shard = g.Read(g.Declare({w.state, Role::kParam, w.spec}));
  if (!zero.weight_bits.has_value()) return Convert(g, shard, w.axes, Shard(0), Replicate());
  const Value bytes = WithLayout(g, Quantize(g, shard, {.bits = *zero.weight_bits}), w.spec.layout);
  return Dequantize(g, Convert(g, bytes, w.axes, Shard(0), Replicate()), *zero.weight_bits, w.spec.dtype);
}

class Gathering {
 public:
  Gathering(Rewrite& r, const Reads& reads, std::span<const ShardedWeights> weights, const ZeroOptions& zero)
      : r_(r), reads_(reads), weights_(weights), zero_(zero), secondary_(weights.size()) {}

  void Emit(GraphBuilder& g, Pass pass, const Use& use) {
    const ShardedWeights& w = weights_[use.bucket];
    Node like = r_.old().nodes[use.first];
    like.scope = "bucket." + w.name;
    g.PushLike(like);
    Value& secondary = secondary_[use.bucket];
    const Value flat = pass == kBackwardPass && secondary.valid()
                           ? Convert(g, secondary, zero_.secondary, Shard(0), Replicate())
                           : Gathered(g, w, zero_);
    if (pass == kForwardPass && zero_.secondary != 0 && UsedInBackward(use.bucket)) {
      secondary = Convert(g, flat, zero_.secondary, Replicate(), Shard(0));
    }
    for (size_t i = 0; i < reads_.by_bucket[use.bucket].size(); ++i) {
      const Value read = reads_.by_bucket[use.bucket][i];
      const int64_t offset = w.entries[reads_.entry[use.bucket][i]].offset;
      r_.Replace(read, FlatView(g, flat, offset, r_.old().spec(read).shape));
    }
    g.Pop();
  }

 private:
  bool UsedInBackward(size_t bucket) const {
    const std::vector<Use>& uses = reads_.passes[kBackwardPass];
    return std::any_of(uses.begin(), uses.end(), [&](const Use& u) { return u.bucket == bucket; });
  }

  Rewrite& r_;
  const Reads& reads_;
  std::span<const ShardedWeights> weights_;
  const ZeroOptions& zero_;
  std::vector<Value> secondary_;  // by bucket
};

}  // namespace

std::vector<ShardedWeights> ShardedWeightsOf(const Graph& graph, std::span<const Bucket> buckets) {
  std::vector<ShardedWeights> all;
  for (const Bucket& b : buckets) {
    if (b.weight_axes == 0) continue;
    const State& flat = graph.states[b.params];
    ShardedWeights w{.name = b.name, .state = flat.name, .spec = flat.spec, .axes = b.weight_axes};
    for (const Bucket::Entry& e : b.entries) w.entries.push_back({graph.states[e.param].name, e.offset});
    all.push_back(std::move(w));
  }
  return all;
}

absl::StatusOr<Graph> GatherWeights(Graph graph, std::span<const ShardedWeights> weights, const ZeroOptions& zero) {
  if (weights.empty()) return graph;
  ASSIGN_OR_RETURN(const Reads reads, FindReads(graph, weights));
  Rewrite r(graph);
  Gathering gathering(r, reads, weights, zero);
  for (const Pass pass : {kForwardPass, kBackwardPass}) {
    const std::vector<Use>& uses = reads.passes[pass];
    for (size_t k = 0; k < uses.size(); ++k) {
      const size_t ahead = std::min(k, static_cast<size_t>(zero.prefetch));
      r.At(uses[k - ahead].first, [&, pass, k](GraphBuilder& g) { gathering.Emit(g, pass, reads.passes[pass][k]); });
    }
  }
  return std::move(r).Run();
}

}  // namespace strata
