#pragma once
// Padded vocabularies: logits of rows that are no tokens take no part in a softmax.

#include "core/graph/builder.h"

namespace strata {

// z[..., v], and -infinity where the global index v >= classes. Written over z where nothing else reads z, so that only the
// padding is touched. Its gradient is that of z, and 0 there.
Value VocabMask(GraphBuilder& g, Value z_BSV, int64_t classes, SourceLoc loc = SourceLoc::Here());

struct VocabMaskAttributes {
  int64_t classes = 0;
  bool to_zero = false;  // 0 instead of -infinity
};
const VocabMaskAttributes& VocabMaskAttributesOf(const Op& op);

}  // namespace strata
