#pragma once
// GPT-2 (Radford et al., "Language Models are Unsupervised Multitask Learners", 2019), as single-device maths on global
// shapes. Pre-norm blocks: x += drop(attention(norm(x)));  x += drop(down gelu(up norm(x))). A norm after the last block;
// the head is tied to the embedding. Dropout on the embedding and on residual branches, none on attention weights.
// Parameters: those of models/layers.h, and head.norm.

#include "models/model.h"

namespace strata {

Model Gpt2Model();

}  // namespace strata
