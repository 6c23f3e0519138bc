#pragma once
// The language model head with its loss: loss = sum weights * nll(x W^T + bias, targets), in chunks of the sequence, so that
// the logits of one chunk exist at a time. A chunk's gradient is computed with its loss: the op's outputs are
//   loss [], dx like x, dw [V, E], and dbias [V] where there is a bias
// which are already multiplied by `seed`, the cotangent of the loss, and the vjp only returns them. It has no
// kernel: DecomposeOps() replaces it before sharding.

#include "core/graph/builder.h"

namespace strata {

// x[B, S, E], w[V, E] and bias[V] (an invalid Value: none) of one dtype; targets i32 [B, S]; weights[B, S], seed [], the loss, dw and dbias in
// AccumulatorOf it.
// S must be a multiple of `chunks`. classes > 0: the rows of w from there on are padding and take part in nothing; their
// gradients are 0. Differentiating the loss with another cotangent than `seed` is an error.
Value HeadLoss(GraphBuilder& g, Value x_BSE, Value w_VE, Value bias_V, Value targets_BS, Value weights_BS, Value seed,
               int chunks, int64_t classes = 0, SourceLoc loc = SourceLoc::Here());

}  // namespace strata
