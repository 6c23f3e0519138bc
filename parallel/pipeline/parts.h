#pragma once
// To which part of a model a node of its forward graph belongs.

#include <vector>

#include "core/graph/graph.h"

namespace strata {

// kShared: graph inputs, reads of states, and what is computed from graph inputs alone. Every stage that needs such a node
// has its own.
struct ModelPart {
  enum Kind : uint8_t { kShared, kEmbedding, kBlock, kHead } kind = kShared;
  int block = -1;  // kBlock
};

// By node. Nodes outside of blocks are of the embedding if a block depends on them, else of the head. Nodes of the backward
// pass are where the forward nodes of their scope are.
std::vector<ModelPart> PartsOf(const Graph& graph);

}  // namespace strata
