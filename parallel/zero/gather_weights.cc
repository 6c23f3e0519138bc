#include "parallel/zero/gather_weights.h"

#include <algorithm>
#include <map>
#include <memory>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/ops/collective.h"
#include "core/ops/flat.h"
#include "core/plan/rewrite.h"

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
  for (int pass : {kForwardPass, kBackwardPass}) {
    for (const auto& [bucket, use] : uses[pass]) reads.passes[pass].push_back(use);
    std::sort(reads.passes[pass].begin(), reads.passes[pass].end(),
              [](const Use& a, const Use& b) { return a.first < b.first; });
  }
  return reads;
}

void EmitGather(Rewrite& r, GraphBuilder& g, const ShardedWeights& w, const Reads& reads, const Use& use) {
  Node like = r.old().nodes[use.first];
  like.scope = "bucket." + w.name;
  g.PushLike(like);
  const StateId state = g.Declare({w.state, Role::kParam, w.spec});
  const Value flat = Convert(g, g.Read(state), w.axes, Shard(0), Replicate());
  for (size_t i = 0; i < reads.by_bucket[use.bucket].size(); ++i) {
    const Value read = reads.by_bucket[use.bucket][i];
    const int64_t offset = w.entries[reads.entry[use.bucket][i]].offset;
    r.Replace(read, FlatView(g, flat, offset, r.old().spec(read).shape));
  }
  g.Pop();
}

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

absl::StatusOr<Graph> GatherWeights(Graph graph, std::span<const ShardedWeights> weights, int64_t prefetch) {
  if (weights.empty()) return graph;
  ASSIGN_OR_RETURN(const Reads reads, FindReads(graph, weights));
  Rewrite r(graph);
  for (const std::vector<Use>& uses : reads.passes) {
    for (size_t k = 0; k < uses.size(); ++k) {
      const size_t ahead = std::min(k, static_cast<size_t>(prefetch));
      r.At(uses[k - ahead].first, [&r, &w = weights[uses[k].bucket], &reads, &use = uses[k]](GraphBuilder& g) {
        EmitGather(r, g, w, reads, use);
      });
    }
  }
  return std::move(r).Run();
}

}  // namespace strata
