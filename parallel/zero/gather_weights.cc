#include "parallel/zero/gather_weights.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <tuple>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/ops/collective.h"
#include "core/ops/embedding.h"
#include "core/ops/flat.h"
#include "core/plan/rewrite.h"
#include "parallel/zero/layouts.h"

namespace strata {
namespace {

// Forward or backward (I and W) of one stage: weights are gathered in each for itself, or in one for both where they stay. The
// update has its shards.
struct Pass {
  int replica = 0, stage = 0;
  bool backward = false;
  auto operator<=>(const Pass&) const = default;
};
Pass PassOf(const Node& n, const ZeroOptions& zero) {
  return {n.replica, n.stage, !zero.resident && n.phase != Phase::kForward};
}

// A bucket in one pass.
struct Use {
  size_t bucket;
  NodeId first, last;  // nodes that read its parameters
};

// The gradient of an embedding wants a table's shape alone.
bool WantsShape(const Node& n, size_t input) { return n.op->name() == "embedding_dw" && input == 2; }

struct Reads {
  std::vector<std::vector<Value>> by_bucket;  // values that are a parameter of it ...
  std::vector<std::vector<size_t>> entry;     // ... and which
  std::map<Pass, std::vector<Use>> passes;    // in order of first use
  std::vector<NodeId> shapes;                 // nodes that want a parameter's shape alone

  const Use* Find(const Pass& pass, size_t bucket) const {
    const auto at = passes.find(pass);
    if (at == passes.end()) return nullptr;
    const auto use =
        std::find_if(at->second.begin(), at->second.end(), [&](const Use& u) { return u.bucket == bucket; });
    return use == at->second.end() ? nullptr : &*use;
  }
};

absl::StatusOr<Reads> FindReads(const Graph& graph, std::span<const FlatWeights> weights, const ZeroOptions& zero) {
  std::map<std::string, std::pair<size_t, size_t>> parameters;
  for (size_t b = 0; b < weights.size(); ++b) {
    for (size_t e = 0; e < weights[b].entries.size(); ++e) parameters[weights[b].entries[e].parameter] = {b, e};
  }
  Reads reads;
  reads.by_bucket.resize(weights.size());
  reads.entry.resize(weights.size());
  std::map<NodeId, size_t> bucket_of;
  std::map<Pass, std::map<size_t, Use>> uses;
  for (NodeId id = 0; id < static_cast<NodeId>(graph.nodes.size()); ++id) {
    const Node& n = graph.nodes[id];
    if (const ReadOp* read = AsRead(n)) {
      const auto it = parameters.find(graph.states[read->state()].name);
      if (it == parameters.end()) continue;
      reads.by_bucket[it->second.first].push_back({id, 0});
      reads.entry[it->second.first].push_back(it->second.second);
      bucket_of[id] = it->second.first;
    }
    for (size_t i = 0; i < n.inputs.size(); ++i) {
      const auto it = bucket_of.find(n.inputs[i].node);
      if (it == bucket_of.end()) continue;
      if (WantsShape(n, i)) {
        reads.shapes.push_back(id);
        continue;
      }
      if (n.phase == Phase::kStep) return absl::InternalError(n.scope + ": a parameter is read in the step phase");
      uses[PassOf(n, zero)].try_emplace(it->second, Use{it->second, id, id}).first->second.last = id;
    }
  }
  for (const auto& [pass, by_bucket] : uses) {
    for (const auto& [bucket, use] : by_bucket) reads.passes[pass].push_back(use);
    std::sort(reads.passes[pass].begin(), reads.passes[pass].end(),
              [](const Use& a, const Use& b) { return a.first < b.first; });
  }
  return reads;
}

// Where the gather for uses[k] stands: before the group that is used `prefetch` groups of buckets earlier.
NodeId AnchorOf(const std::vector<Use>& uses, size_t k, std::span<const FlatWeights> weights, int64_t prefetch) {
  const auto group = [&](size_t i) -> const std::string& { return weights[uses[i].bucket].group; };
  while (k > 0 && (prefetch > 0 || group(k - 1) == group(k))) {
    if (group(k - 1) != group(k)) --prefetch;
    --k;
  }
  return uses[k].first;
}

// From its gather on, a bucket's reads mean what was gathered: passes must not use a bucket in turns.
absl::Status CheckTurns(const Reads& reads, const Graph& graph, std::span<const FlatWeights> weights,
                        int64_t prefetch) {
  std::map<size_t, std::vector<std::pair<NodeId, NodeId>>> spans;  // by bucket
  for (const auto& [pass, uses] : reads.passes) {
    for (size_t k = 0; k < uses.size(); ++k) {
      spans[uses[k].bucket].emplace_back(AnchorOf(uses, k, weights, prefetch), uses[k].last);
    }
  }
  for (auto& [bucket, of_bucket] : spans) {
    std::sort(of_bucket.begin(), of_bucket.end());
    for (size_t i = 1; i < of_bucket.size(); ++i) {
      if (of_bucket[i].first > of_bucket[i - 1].second) continue;
      return absl::InternalError(
          absl::StrFormat("%s: two passes use its weights in turns", graph.nodes[of_bucket[i].first].scope));
    }
  }
  return absl::OkStatus();
}

// All weights of a bucket, from the shards.
Value Gathered(GraphBuilder& g, const FlatWeights& w, const ZeroOptions& zero) {
  const Value shard = g.Read(g.Declare({w.state, Role::kParam, w.spec}));
  if (!zero.weight_bits.has_value()) return Convert(g, shard, w.axes, Shard(0), Replicate());
  const Value bytes = WithLayout(g, Quantize(g, shard, {.bits = *zero.weight_bits}), w.spec.layout);
  return Dequantize(g, Convert(g, bytes, w.axes, Shard(0), Replicate()), *zero.weight_bits, w.spec.dtype);
}

class Gathering {
 public:
  Gathering(Rewrite& r, const Reads& reads, std::span<const FlatWeights> weights, const ZeroOptions& zero)
      : r_(r), reads_(reads), weights_(weights), zero_(zero) {}

  void Emit(GraphBuilder& g, const Pass& pass, const Use& use) {
    const FlatWeights& w = weights_[use.bucket];
    const Node& first = r_.old().nodes[use.first];
    const EmitLike like(g, first, "bucket." + w.name, zero_.resident ? Phase::kUnshard : first.phase);
    Value& secondary = secondary_[{pass.replica, pass.stage, use.bucket}];
    const Value flat = pass.backward && secondary.valid()
                           ? Convert(g, secondary, zero_.secondary, Shard(0), Replicate())
                           : Gathered(g, w, zero_);
    if (!pass.backward && zero_.secondary != 0 &&
        reads_.Find({pass.replica, pass.stage, true}, use.bucket) != nullptr) {
      secondary = Convert(g, flat, zero_.secondary, Replicate(), Shard(0));
    }
    for (size_t i = 0; i < reads_.by_bucket[use.bucket].size(); ++i) {
      const Value read = reads_.by_bucket[use.bucket][i];
      const int64_t offset = w.entries[reads_.entry[use.bucket][i]].offset;
      r_.Replace(read, FlatView(g, flat, offset, r_.old().spec(read).shape));
    }
  }

 private:
  Rewrite& r_;
  const Reads& reads_;
  std::span<const FlatWeights> weights_;
  const ZeroOptions& zero_;
  std::map<std::tuple<int, int, size_t>, Value> secondary_;  // by replica, stage, bucket
};

}  // namespace

std::set<StateId> ForwardOnly(const Graph& graph) {
  std::set<StateId> forward, backward;
  for (const Node& n : graph.nodes) {
    for (size_t i = 0; i < n.inputs.size(); ++i) {
      const ReadOp* read = AsRead(graph.nodes[n.inputs[i].node]);
      if (read == nullptr || WantsShape(n, i)) continue;
      const State& s = graph.states[read->state()];
      if (s.role == Role::kParam && s.spec.shape.rank >= 2) {
        (n.phase == Phase::kForward ? forward : backward).insert(read->state());
      }
    }
  }
  std::erase_if(forward, [&](StateId s) { return backward.contains(s); });
  return forward;
}

absl::StatusOr<Graph> GatherWeights(Graph graph, std::span<const FlatWeights> all, const ZeroOptions& zero) {
  std::vector<FlatWeights> weights;
  std::copy_if(all.begin(), all.end(), std::back_inserter(weights), [](const FlatWeights& w) { return w.axes != 0; });
  if (weights.empty()) return graph;
  ASSIGN_OR_RETURN(const Reads reads, FindReads(graph, weights, zero));
  Rewrite r(graph);
  RETURN_IF_ERROR(CheckTurns(reads, graph, weights, zero.prefetch));
  for (const NodeId id : reads.shapes) {
    r.At(id, [&r, id](GraphBuilder& g) {
      const Node& n = r.old().nodes[id];
      EmbeddingDwSpec spec = EmbeddingDwSpecOf(*n.op);
      spec.vocab = n.outputs[0].shape[0];
      r.Replace({id, 0}, EmbeddingDw(g, r.New(n.inputs[0]), r.New(n.inputs[1]), spec));
    });
  }
  Gathering gathering(r, reads, weights, zero);
  for (const auto& [pass, uses] : reads.passes) {
    for (size_t k = 0; k < uses.size(); ++k) {
      r.At(AnchorOf(uses, k, weights, zero.prefetch),
           [&, pass = pass, &use = uses[k]](GraphBuilder& g) { gathering.Emit(g, pass, use); });
    }
  }
  return std::move(r).Run();
}

}  // namespace strata
