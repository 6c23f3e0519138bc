#pragma once
// The ops of an optimizer step on flat buckets (core/plan/bucket.h). The optimizer pass emits them after sharding, so every
// operand is local storage. Not differentiable.

#include <span>
#include <vector>

#include "core/graph/builder.h"
#include "core/graph/op.h"

namespace strata {

struct FlatRange {
  int64_t offset = 0, count = 0;  // elements
  bool operator==(const FlatRange&) const = default;
};

// What of a flat tensor decays, and how fast.
struct DecayRange {
  FlatRange range;
  double decay = 0;
  bool operator==(const DecayRange&) const = default;
};

// The sum of squares of `ranges` of the flat tensor, [] in AccumulatorOf the dtype of `flat`. Summed in fixed tiles and a
// fixed tree over them: the bits do not depend on the number of threads.
Value SumSquares(GraphBuilder& g, Value flat, std::vector<FlatRange> ranges, SourceLoc loc = SourceLoc::Here());
Value Sqrt(GraphBuilder& g, Value x, SourceLoc loc = SourceLoc::Here());

// Whether a step's update is applied: `norm` where it and the loss are finite and loss <= StepScalars::loss_limit, else NaN,
// by which an optimizer op leaves its states alone. Both are [] and the same on every rank, and so is the decision.
Value Guard(GraphBuilder& g, Value norm, Value loss, SourceLoc loc = SourceLoc::Here());

// AdamW: Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (ICLR 2019), algorithm 2, with the decay scaled by
// the learning rate. With t = StepScalars::step from 1, lr = StepScalars::lr, elementwise:
//   g  = grad * min(1, max_norm / (norm + 1e-6))          g = grad where max_norm is 0
//   m' = beta1 m + (1 - beta1) g                          v' = beta2 v + (1 - beta2) g^2
//   w' = w - lr ( (m' / (1 - beta1^t)) / (sqrt(v' / (1 - beta2^t)) + eps) + decay w )
// Where StepScalars::skip_update is set or norm is not finite nothing changes. All in the dtype of the weights, f64 or
// f32. With `live`, weights are the f32 master of bf16 live weights, and live' = bf16(w'). Or weights are low16, and w is the two
// together (JoinHalves): live' is w' rounded half up, and weights' what that leaves.
struct AdamWSpec {
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8, max_norm = 0;
  std::vector<DecayRange> segments;  // by offset, disjoint; no decay elsewhere
};
// Flat tensors of one shape; grads of f32 weights may be bf16. The results share the storage of weights, m, v and live.
struct AdamWOperands {
  Value weights, grads, m, v, norm, live{};  // norm: [] global gradient norm; live: bf16, or invalid
};
struct AdamWResults {
  Value weights, m, v, live{};
};
AdamWResults AdamW(GraphBuilder& g, AdamWSpec spec, const AdamWOperands& in, SourceLoc loc = SourceLoc::Here());

// SGD with momentum, as in equation 9 of Goyal et al., "Accurate, Large Minibatch SGD" (arXiv:1706.02677): a change of the
// learning rate needs no correction of u. With g clipped as above:
//   g' = g + decay w      u' = momentum u + g'      w' = w - lr u'      Nesterov: w' = w - lr (g' + momentum u')
// Nesterov: Sutskever et al., "On the importance of initialization and momentum in deep learning" (ICML 2013).
struct SgdSpec {
  double momentum = 0.9, max_norm = 0;
  bool nesterov = false;
  std::vector<DecayRange> segments;  // as AdamWSpec's
};
struct SgdOperands {
  Value weights, grads, u, norm, live{};
};
struct SgdResults {
  Value weights, u, live{};
};
SgdResults Sgd(GraphBuilder& g, SgdSpec spec, const SgdOperands& in, SourceLoc loc = SourceLoc::Here());

// For the kernels of ops of these names.
std::span<const FlatRange> SumSquaresRanges(const Op& sum_squares);
const AdamWSpec& AdamWSpecOf(const Op& adamw);
const SgdSpec& SgdSpecOf(const Op& sgd);

}  // namespace strata
