#include "parallel/shard/dim_class.h"

#include <numeric>

namespace strata {

DimClasses::DimClasses(const Graph& graph, std::span<const std::vector<ShardRule>> rules) {
  int outputs = 0;
  for (const Node& n : graph.nodes) {
    first_.push_back(outputs);
    outputs += static_cast<int>(n.outputs.size());
  }
  class_.resize(static_cast<size_t>(outputs) * kMaxRank);
  std::iota(class_.begin(), class_.end(), 0);
  const auto root = [this](int i) {
    while (class_[i] != i) i = class_[i] = class_[class_[i]];
    return i;
  };
  for (NodeId id = 0; id < static_cast<NodeId>(graph.nodes.size()); ++id) {
    for (const ShardRule& rule : rules[id]) {
      if (rule.expand) continue;  // its outputs may be cut along something else than its inputs
      int first = -1;
      const auto join = [&](Value v, Placement p) {
        if (!p.is_shard()) return;
        const int i = root(Index(v, p.dim));
        if (first >= 0) class_[i] = root(first);
        first = root(i);
      };
      for (size_t k = 0; k < rule.in.size(); ++k) join(graph.nodes[id].inputs[k], rule.in[k]);
      for (size_t k = 0; k < rule.out.size(); ++k) join({id, static_cast<int32_t>(k)}, rule.out[k]);
    }
  }
  for (size_t i = 0; i < class_.size(); ++i) class_[i] = root(static_cast<int>(i));
}

}  // namespace strata
