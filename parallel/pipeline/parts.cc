#include "parallel/pipeline/parts.h"

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

}  // namespace

std::vector<ModelPart> PartsOf(const Graph& g) {
  const std::vector<bool> pure = FunctionsOfInputs(g), before_blocks = NeededByBlocks(g);
  std::map<std::string, ModelPart> by_scope;
  std::vector<ModelPart> parts(g.nodes.size());
  for (size_t i = 0; i < g.nodes.size(); ++i) {
    const Node& n = g.nodes[i];
    if (n.phase == Phase::kForward && (pure[i] || AsRead(n) != nullptr)) continue;
    if (n.block >= 0) {
      parts[i] = {ModelPart::kBlock, n.block};
    } else if (n.phase == Phase::kForward) {
      parts[i] = {before_blocks[i] ? ModelPart::kEmbedding : ModelPart::kHead};
      by_scope[n.scope] = parts[i];
    } else if (const auto it = by_scope.find(n.scope); it != by_scope.end()) {
      parts[i] = it->second;
    }
  }
  return parts;
}

}  // namespace strata
