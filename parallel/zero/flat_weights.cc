#include "parallel/zero/flat_weights.h"

#include <map>
#include <set>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/graph/builder.h"

namespace strata {

std::string BucketName(const Node& read, const std::string& parameter) {
  return read.block >= 0 ? absl::StrFormat("blocks.%d", read.block) : parameter.substr(0, parameter.find('.'));
}

int64_t NextOffset(int64_t elements) {
  constexpr int64_t kAlignment = 64;
  return (elements + kAlignment - 1) / kAlignment * kAlignment;
}

std::vector<FlatWeights> FlatWeightsOf(const Graph& graph, std::span<const Bucket> buckets) {
  std::vector<FlatWeights> all;
  for (const Bucket& b : buckets) {
    const State& flat = graph.states[b.params];
    FlatWeights w{.name = b.name, .group = b.group, .state = flat.name, .spec = flat.spec, .axes = b.weight_axes};
    for (const Bucket::Entry& e : b.entries) w.entries.push_back({graph.states[e.param].name, e.offset});
    all.push_back(std::move(w));
  }
  return all;
}

absl::StatusOr<std::vector<FlatWeights>> LayOutWeights(const Graph& local, const Mesh& mesh) {
  std::map<StateId, std::string> bucket_of;
  for (const Node& n : local.nodes) {
    const ReadOp* read = AsRead(n);
    if (read == nullptr || local.states[read->state()].role != Role::kParam) continue;
    bucket_of.try_emplace(read->state(), BucketName(n, local.states[read->state()].name));
  }
  std::map<std::pair<std::string, DType>, FlatWeights> buckets;
  for (const auto& [id, name] : bucket_of) {
    const State& s = local.states[id];
    FlatWeights& w = buckets[{name, s.spec.dtype}];
    const bool fresh = w.entries.empty();
    if (fresh) w = {.name = name, .group = name, .state = absl::StrFormat("bucket.%s.%s", name, Name(s.spec.dtype))};
    const int64_t offset = fresh ? 0 : NextOffset(w.spec.shape[0]);
    ASSIGN_OR_RETURN(const LocalBox box, LocalBoxOf(s.spec.shape, s.spec.layout, mesh));
    w.spec = {s.spec.dtype, {offset + box.shape.elements()}, {}};
    w.entries.push_back({s.name, offset});
  }
  std::vector<FlatWeights> all;
  for (auto& [key, w] : buckets) all.push_back(std::move(w));
  return all;
}

absl::StatusOr<Graph> ViewWeights(Graph local, std::span<const FlatWeights> weights) {
  std::map<std::string, StateId> ids;
  for (size_t i = 0; i < local.states.size(); ++i) ids[local.states[i].name] = static_cast<StateId>(i);
  GraphBuilder g(std::move(local));
  for (const FlatWeights& w : weights) {
    if (w.axes != 0) continue;
    const StateId flat = g.Declare({w.state, Role::kParam, w.spec});
    for (const FlatWeights::Entry& e : w.entries) {
      const auto at = ids.find(e.parameter);
      if (at == ids.end()) continue;
      g.mutable_graph().states[at->second].storage = flat;
      g.mutable_graph().states[at->second].storage_offset = e.offset;
    }
  }
  return std::move(g).Build();
}

}  // namespace strata
