#pragma once
// To which part of a model a node of its graph belongs. A block ends a part of its own at every residual that it names, the
// value "*.residual": attention and feed-forward are two parts. A model knows nothing of it.

#include <string_view>
#include <vector>

#include "core/graph/graph.h"

namespace strata {

// kShared: graph inputs, reads of states, and what is computed from graph inputs alone. Every stage that needs such a node
// has its own.
struct ModelPart {
  enum Kind : uint8_t { kShared, kEmbedding, kBlock, kHead } kind = kShared;
  int block = -1, part = 0;  // kBlock; parts of a block count from 0
};

// By node. Nodes outside of blocks are of the embedding if a block depends on them, else of the head; their backward pass is
// where the forward nodes of its scope are. In a block, forward nodes are of the part that the next residual ends, what
// comes after the last one of the last part; of the backward pass, what depends on the gradient of a residual is of the
// parts up to it.
std::vector<ModelPart> PartsOf(const Graph& graph);

// 1 where blocks name no residual, or not each as many. At most kMaxParts, a letter each in a layout's text.
inline constexpr int kMaxParts = 26;
int PartsPerBlock(const Graph& graph);

bool IsResidual(std::string_view name);  // of a value

}  // namespace strata
