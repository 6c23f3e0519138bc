#pragma once
// Where a token is in its document: positions[s] - starts[b, s], for rows into which several documents are packed.

#include "core/graph/builder.h"

namespace strata {

// positions i32 [S]; starts i32 [B, S], the position of the first token of each token's document. i32 [B, S]; no gradient.
// Sharding: both dims.
Value DocumentPositions(GraphBuilder& g, Value positions_S, Value starts_BS, SourceLoc loc = SourceLoc::Here());

}  // namespace strata
