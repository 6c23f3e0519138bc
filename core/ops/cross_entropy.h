#pragma once
// Cross-entropy over the vocabulary in pieces that stay local where the vocabulary is sharded: max and sum come out
// Partial and only [B, S] values are reduced; logits are never gathered. With z[B, S, V] logits:
//   m = max_v z,  s = sum_v exp(z - m),  p = z[target],  nll = sum_{b,s} weight * (m + log s - p).
// m, s, p, weights and scalars are AccumulatorOf the dtype of z; targets are i32 [B, S]. A target outside of the
// vocabulary (an ignored token) picks 0: give it weight 0.

#include "core/graph/builder.h"

namespace strata {

// m is a shift that cancels in m + log s: neither VocabMax nor the m operands of the others pass a gradient.
Value VocabMax(GraphBuilder& g, Value z_BSV, SourceLoc loc = SourceLoc::Here());
Value VocabSumExp(GraphBuilder& g, Value z_BSV, Value m_BS, SourceLoc loc = SourceLoc::Here());
Value VocabPick(GraphBuilder& g, Value z_BSV, Value targets_BS, SourceLoc loc = SourceLoc::Here());
Value Nll(GraphBuilder& g, Value m_BS, Value s_BS, Value p_BS, Value weights_BS, SourceLoc loc = SourceLoc::Here());

// dz = ds * exp(z - m).
Value VocabSumExpDx(GraphBuilder& g, Value z_BSV, Value m_BS, Value ds_BS, SourceLoc loc = SourceLoc::Here());
// dz = dp at the target, else 0. Only the shape of z is read.
Value VocabPickDx(GraphBuilder& g, Value z_BSV, Value targets_BS, Value dp_BS, SourceLoc loc = SourceLoc::Here());
// ds = seed * weight / s, dp = -seed * weight; seed is d loss / d nll, of shape [].
struct NllGradients {
  Value ds_BS, dp_BS;
};
NllGradients NllDx(GraphBuilder& g, Value s_BS, Value weights_BS, Value seed, SourceLoc loc = SourceLoc::Here());

// Fused gradient of nll: dz = seed * weight * (exp(z - m) / s - [v == target]), of the dtype of z.
Value SoftmaxGrad(GraphBuilder& g, Value z_BSV, Value m_BS, Value s_BS, Value targets_BS, Value weights_BS, Value seed,
                  SourceLoc loc = SourceLoc::Here());

}  // namespace strata
