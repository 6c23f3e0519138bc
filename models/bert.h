#pragma once
// BERT (Devlin et al., arXiv:1810.04805) with its masked language model, as single-device maths on global shapes.
// x = drop(norm(tokens + positions + segment)), all in segment 0. Post-norm blocks: x = norm(x + drop(attention(x)));
// x = norm(x + drop(down gelu(up x))), where every position sees every other. Head: the tied embedding and a bias on
// norm(gelu(dense x)). Dropout on the embedding and on residual branches, none on attention weights. No pooler, no
// next-sentence loss.
// Parameters: those of models/layers.h; embed.segments [2,E], embed.norm; head.dense, head.norm, head.bias [V].

#include "models/model.h"

namespace strata {

Model BertModel();

}  // namespace strata
