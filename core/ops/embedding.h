#pragma once
// Table look-up by int32 tokens, and its gradient. A shard of the table covers the rows [origin, origin + rows) of the
// vocabulary: tokens outside contribute zeros, so shards add up to the whole.
// Sharding: token dims; V (the look-up is then Partial); E. The gradient is Partial over sharded token dims.

#include "core/graph/builder.h"
#include "core/graph/op.h"

namespace strata {

Value Embedding(GraphBuilder& g, Value tokens_BS, Value table_VE, SourceLoc loc = SourceLoc::Here());  // [B, S, E]
// d table [V, E] in AccumulatorOf(dtype): rows of dy added in token order. Of the table only the shape is used.
Value EmbeddingDw(GraphBuilder& g, Value tokens_BS, Value dy_BSE, Value table_VE, SourceLoc loc = SourceLoc::Here());
// The same without a table, of `vocab` rows: after sharding, where the caller sets the layout that the table has.
Value EmbeddingDw(GraphBuilder& g, Value tokens_BS, Value dy_BSE, int64_t vocab, SourceLoc loc = SourceLoc::Here());

}  // namespace strata
