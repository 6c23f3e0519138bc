#pragma once
// Rotary position embedding, rotate-half convention (as in Llama checkpoints of Hugging Face): the pair (i, i + D/2) of
// every head turns by the angle pos * f, f = theta^(-2i/D). Source: Su et al., "RoFormer" (2021).
// RopeScaling lowers the low frequencies for texts that are longer than those of the first training: with w = 2 pi / f
//   f                                    where w < original / high
//   f / factor                           where w > original / low
//   (1 - s) f / factor + s f             between, s = (original / w - low) / (high - low)
// Source: the reference code of Llama 3.1 (Grattafiori et al., arXiv:2407.21783, sec. 3.4.2).

#include "core/graph/builder.h"

namespace strata {

enum class RopeDirection : uint8_t { kForward, kInverse };  // the inverse rotation is the gradient

struct RopeScaling {
  double factor = 1;         // 1: none
  double low = 1, high = 4;  // low < high
  double original = 8192;    // tokens
  bool operator==(const RopeScaling&) const = default;
};

struct RopeAttributes {
  double theta = 10000;
  RopeDirection direction = RopeDirection::kForward;
  RopeScaling scaling{};
  bool operator==(const RopeAttributes&) const = default;
};

// Also for kernels on a GPU.
constexpr double ScaledFrequency(const RopeScaling& s, double f) {
  constexpr double kTwoPi = 6.283185307179586476925;
  const double waves = s.original * f / kTwoPi;  // turns over the original length
  if (s.factor == 1 || waves > s.high) return f;
  if (waves < s.low) return f / s.factor;
  const double smooth = (waves - s.low) / (s.high - s.low);
  return (1 - smooth) * f / s.factor + smooth * f;
}

// x[B, S, H, D], D even; positions i32 [S], or [B, S] where they differ between rows. Angles are made in float64 and their cos and sin rounded to the arithmetic
// type.
Value Rope(GraphBuilder& g, Value x_BSHD, Value positions, double theta,
           RopeDirection direction = RopeDirection::kForward, SourceLoc loc = SourceLoc::Here());
Value Rope(GraphBuilder& g, Value x_BSHD, Value positions, const RopeAttributes& rope,
           SourceLoc loc = SourceLoc::Here());

const RopeAttributes& RopeAttributesOf(const Op& op);  // of a "rope"; for its kernels

}  // namespace strata
