#pragma once
// Table look-up by int32 tokens, and its gradient. A shard of the table covers the rows [origin, origin + rows) of the
// vocabulary: tokens outside contribute zeros, so shards add up to the whole.
// Sharding: token dims; V (the look-up is then Partial); E. The gradient is Partial over sharded token dims.

#include <memory>

#include "core/graph/builder.h"
#include "core/graph/op.h"

namespace strata {

Value Embedding(GraphBuilder& g, Value tokens_BS, Value table_VE, SourceLoc loc = SourceLoc::Here());  // [B, S, E]
// d table [V, E] in AccumulatorOf(dtype): rows of dy added in token order. Of the table only the shape is used.
Value EmbeddingDw(GraphBuilder& g, Value tokens_BS, Value dy_BSE, Value table_VE, SourceLoc loc = SourceLoc::Here());
// The same without a table: after sharding, where the caller sets the layout that the table has.
struct EmbeddingDwSpec {
  int64_t vocab = 0;     // rows; 0: those of the table
  bool rounded = false;  // once, to the dtype of dy
};
Value EmbeddingDw(GraphBuilder& g, Value tokens_BS, Value dy_BSE, const EmbeddingDwSpec& spec,
                  SourceLoc loc = SourceLoc::Here());
// The op of it, with a table, whose result is rounded.
std::shared_ptr<const Op> RoundedEmbeddingDw();

const EmbeddingDwSpec& EmbeddingDwSpecOf(const Op& embedding_dw);

}  // namespace strata
