#include "parallel/pipeline/parts.h"

#include <algorithm>

#include "core/graph/builder.h"

namespace strata {
namespace {

// Nodes that depend on graph inputs alone, not on a parameter or another state.
std::vector<bool> FunctionsOfInputs(const Graph& g) {
  std::vector<bool> pure(g.nodes.size());
  for (size_t i = 0; i < g.nodes.size(); ++i) {
    pure[i] = AsInput(g.nodes[i]) != nullptr || !g.nodes[i].inputs.empty();
    for (Value v : g.nodes[i].inputs) pure[i] = pure[i] && pure[v.node];
  }
  return pure;
}

std::vector<bool> NeededByBlocks(const Graph& g) {
  std::vector<bool> needed(g.nodes.size());
  for (size_t i = g.nodes.size(); i-- > 0;) {
    const Node& n = g.nodes[i];
    if (n.phase != Phase::kForward || !(needed[i] || n.block >= 0)) continue;
    for (Value v : n.inputs) needed[v.node] = true;
  }
  return needed;
}

// Of each block, in order.
std::map<int, std::vector<Value>> ResidualsOf(const Graph& g) {
  std::map<int, std::vector<Value>> residuals;
  for (const Node& n : g.nodes) {
    if (n.phase == Phase::kForward && n.block >= 0) residuals[n.block];
  }
  for (const auto& [name, v] : g.named) {
    const Node& n = g.nodes[v.node];
    if (n.phase == Phase::kForward && n.block >= 0 && IsResidual(name)) residuals[n.block].push_back(v);
  }
  for (auto& [block, values] : residuals) {
    std::sort(values.begin(), values.end());
    values.erase(std::unique(values.begin(), values.end()), values.end());
  }
  return residuals;
}

int PartsPerBlock(const std::map<int, std::vector<Value>>& residuals) {
  if (residuals.empty()) return 1;
  const size_t parts = residuals.begin()->second.size();
  const bool alike =
      std::all_of(residuals.begin(), residuals.end(), [&](const auto& block) { return block.second.size() == parts; });
  return alike && parts >= 1 && parts <= kMaxParts ? static_cast<int>(parts) : 1;
}

// By node of a block: its part.
std::vector<int> PartsInBlocks(const Graph& g) {
  const std::map<int, std::vector<Value>> residuals = ResidualsOf(g);
  const int last = PartsPerBlock(residuals) - 1;
  std::map<Value, Value> gradients;  // of residuals: the last node that makes one has the whole sum
  for (const auto& [block, values] : residuals) {
    for (Value v : values) gradients[v];
  }
  for (NodeId id = 0; id < static_cast<NodeId>(g.nodes.size()); ++id) {
    for (size_t k = 0; k < g.nodes[id].outputs.size(); ++k) {
      const auto it = gradients.find(g.nodes[id].grad_of[k]);
      if (it != gradients.end()) it->second = {id, static_cast<int32_t>(k)};
    }
  }
  std::vector<int> parts(g.nodes.size(), last);
  for (NodeId id = 0; id < static_cast<NodeId>(g.nodes.size()); ++id) {
    const Node& n = g.nodes[id];
    const auto block = residuals.find(n.block);
    if (block == residuals.end()) continue;
    for (int p = last - 1; p >= 0; --p) {
      const Value residual = block->second[p], gradient = gradients[residual];
      const auto beyond = [&](Value v) {
        return v == gradient ||
               (g.nodes[v.node].phase != Phase::kForward && g.nodes[v.node].block == n.block && parts[v.node] <= p);
      };
      const bool before =
          n.phase == Phase::kForward ? id <= residual.node : std::any_of(n.inputs.begin(), n.inputs.end(), beyond);
      if (before) parts[id] = p;
    }
  }
  return parts;
}

}  // namespace

std::vector<ModelPart> PartsOf(const Graph& g) {
  const std::vector<bool> pure = FunctionsOfInputs(g), before_blocks = NeededByBlocks(g);
  const std::vector<int> in_block = PartsInBlocks(g);
  std::map<std::string, ModelPart> by_scope;
  std::vector<ModelPart> parts(g.nodes.size());
  for (size_t i = 0; i < g.nodes.size(); ++i) {
    const Node& n = g.nodes[i];
    if (AsRead(n) != nullptr || (n.phase == Phase::kForward && pure[i])) continue;
    if (n.block >= 0) {
      parts[i] = {ModelPart::kBlock, n.block, in_block[i]};
    } else if (n.phase == Phase::kForward) {
      parts[i] = {before_blocks[i] ? ModelPart::kEmbedding : ModelPart::kHead};
      by_scope[n.scope] = parts[i];
    } else if (const auto it = by_scope.find(n.scope); it != by_scope.end()) {
      parts[i] = it->second;
    }
  }
  return parts;
}

int PartsPerBlock(const Graph& graph) { return PartsPerBlock(ResidualsOf(graph)); }

bool IsResidual(std::string_view name) { return name == "residual" || name.ends_with(".residual"); }

}  // namespace strata
