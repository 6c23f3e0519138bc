#pragma once
// Rotary position embedding, rotate-half convention (as in Llama checkpoints of Hugging Face): the pair (i, i + D/2) of
// every head turns by the angle pos * theta^(-2i/D). Source: Su et al., "RoFormer" (2021).

#include "core/graph/builder.h"

namespace strata {

enum class RopeDirection : uint8_t { kForward, kInverse };  // the inverse rotation is the gradient

struct RopeAttributes {
  double theta = 10000;
  RopeDirection direction = RopeDirection::kForward;
};

// x[B, S, H, D], D even; positions i32 [S], or [B, S] where they differ between rows. Angles are made in float64 and their cos and sin rounded to the arithmetic
// type.
Value Rope(GraphBuilder& g, Value x_BSHD, Value positions, double theta,
           RopeDirection direction = RopeDirection::kForward, SourceLoc loc = SourceLoc::Here());

const RopeAttributes& RopeAttributesOf(const Op& op);  // of a "rope"; for its kernels

}  // namespace strata
