#pragma once
// Ops that the fusion pass (core/plan/fuse.h) puts in the place of several plain ones, where the back end has a kernel for
// them. Decompose() of each says which ones. Not differentiable: the pass runs on the local graph of a rank, after autograd
// and sharding. "Packed" tensors hold several results side by side along one dim, in the order of the operands; where that
// dim is sharded each rank packs its local parts.

#include <span>
#include <vector>

#include "core/graph/builder.h"
#include "core/ops/attention.h"
#include "core/ops/gelu.h"
#include "core/ops/rope.h"

namespace strata {

struct FusedAttributes {
  bool always_add = false;  // an accumulation that adds even where KernelArgs::overwrite is set
  int64_t group = 1;        // query heads a key/value head: T = (group + 2) Hk heads are packed as q | k | v
  int64_t head_dim = 0;     // of heads that a product makes
  RopeAttributes rope;
  AttentionMask mask = AttentionMask::kCausal;
  GeluKind gelu = GeluKind::kTanh;
};
const FusedAttributes& FusedAttributesOf(const Op& op);  // of any op below

// y[..., N] = x[..., K] w[N, K]^T + r[..., N], rounded once. May be computed in r's storage.
Value LinearAdd(GraphBuilder& g, Value x_K, Value w_NK, Value r_N, SourceLoc loc = SourceLoc::Here());

// y = x w^T + bias[N] (+ r[..., N]), rounded once. May be computed in r's storage.
Value LinearBias(GraphBuilder& g, Value x_K, Value w_NK, Value bias_N, SourceLoc loc = SourceLoc::Here());
Value LinearBiasAdd(GraphBuilder& g, Value x_K, Value w_NK, Value bias_N, Value r_N, SourceLoc loc = SourceLoc::Here());

// Weights [Ni, K] of one x whose storage is adjacent: y[..., N1 + N2 + ...], and its two gradients. `accs` f32 [Ni, K],
// adjacent too: acc_i += dy_i^T x in acc_i's storage (x and dy of any floating dtype, sums in f32).
Value LinearPacked(GraphBuilder& g, Value x_K, std::span<const Value> w_NK, SourceLoc loc = SourceLoc::Here());
// With as many biases [Ni], adjacent too.
Value LinearPackedBias(GraphBuilder& g, Value x_K, std::span<const Value> w_NK, std::span<const Value> bias_N,
                       SourceLoc loc = SourceLoc::Here());
Value LinearPackedDx(GraphBuilder& g, Value dy_N, std::span<const Value> w_NK, SourceLoc loc = SourceLoc::Here());
// dx + r[..., K], rounded once; of one weight too. May be computed in r's storage.
Value LinearDxAdd(GraphBuilder& g, Value dy_N, std::span<const Value> w_NK, Value r_K,
                  SourceLoc loc = SourceLoc::Here());
std::vector<Value> LinearDwAcc(GraphBuilder& g, std::span<const Value> accs, Value dy_N, Value x_K, bool always_add,
                               SourceLoc loc = SourceLoc::Here());
// And SquareParts (core/ops/squares.h) of the sums, in the storage of `squares`, whose values are not read.
struct SquaredSums {
  std::vector<Value> accs;
  Value squares;
};
SquaredSums LinearDwAccSquares(GraphBuilder& g, std::span<const Value> accs, Value squares, Value dy_N, Value x_K,
                               SourceLoc loc = SourceLoc::Here());
// acc_i[Ni] += the sum over leading dims of its part of dy[..., N1 + N2 + ...]; adjacent too, f32, or
// bf16 for what is added once, in acc_i's storage.
std::vector<Value> BiasGradAcc(GraphBuilder& g, std::span<const Value> accs, Value dy_N, bool always_add,
                               SourceLoc loc = SourceLoc::Here());
Value EmbeddingDwAcc(GraphBuilder& g, Value acc_VE, Value tokens_BS, Value dy_BSE, bool always_add,
                     SourceLoc loc = SourceLoc::Here());
SquaredSums EmbeddingDwAccSquares(GraphBuilder& g, Value acc_VE, Value squares, Value tokens_BS, Value dy_BSE,
                                  SourceLoc loc = SourceLoc::Here());

// qkv[B, S, T, D]: q's and k's heads are turned, v's are copied. May be computed in qkv's storage.
Value RopePacked(GraphBuilder& g, Value qkv_BSTD, Value positions_S, const RopeAttributes& rope, int64_t group,
                 SourceLoc loc = SourceLoc::Here());

// RopePacked of x (wq | wk | wv)^T, adjacent weights, seen as heads of head_dim, bit for bit: qkv[B, S, T, D].
Value LinearRope(GraphBuilder& g, Value x_BSK, Value positions_S, std::span<const Value> w_NK,
                 const RopeAttributes& rope, int64_t group, int64_t head_dim, SourceLoc loc = SourceLoc::Here());

// o[B, S, H, D] and lse[B, S, H] of q | k | v; keys and queries have the same positions, rising along S. `starts` [B, S] as
// in core/ops/attention.h, or none.
struct PackedAttention {
  Value o_BSHD, lse_BSH;
};
PackedAttention AttentionPacked(GraphBuilder& g, Value qkv_BSTD, Value positions_S, AttentionMask mask, int64_t group,
                                Value starts_BS = {}, SourceLoc loc = SourceLoc::Here());
Value AttentionPackedBwd(GraphBuilder& g, Value do_BSHD, Value qkv_BSTD, Value o_BSHD, Value lse_BSH, Value positions_S,
                         AttentionMask mask, int64_t group, Value starts_BS = {}, SourceLoc loc = SourceLoc::Here());
// RopePacked of it, by the inverse rotation: the gradient of what was turned by `rope_positions` ([S] or [B, S]) before
// attention. Kernels may leave out the rounding in between.
Value AttentionRopeBwd(GraphBuilder& g, Value do_BSHD, Value qkv_BSTD, Value o_BSHD, Value lse_BSH, Value positions_S,
                       Value rope_positions, AttentionMask mask, const RopeAttributes& rope, int64_t group,
                       Value starts_BS = {}, SourceLoc loc = SourceLoc::Here());

// q[B, S, H, D], k and v [B, S, Hk, D] side by side, and such a packed tensor taken apart again.
Value HeadsPacked(GraphBuilder& g, Value q_BSHD, Value k_BSHD, Value v_BSHD, SourceLoc loc = SourceLoc::Here());
struct SplitHeads {
  Value q_BSHD, k_BSHD, v_BSHD;
};
SplitHeads HeadsUnpacked(GraphBuilder& g, Value qkv_BSTD, int64_t group, SourceLoc loc = SourceLoc::Here());

// h[..., F] = silu(y[..., :F]) y[..., F:]; its gradient [..., 2 F] may be computed in y's storage.
Value SwigluPacked(GraphBuilder& g, Value y_2F, SourceLoc loc = SourceLoc::Here());
Value SwigluPackedDx(GraphBuilder& g, Value dh_F, Value y_2F, SourceLoc loc = SourceLoc::Here());

// Both in the product beside them, bit for bit: gu[..., 2 F] = x (gate | up)^T and h = SwigluPacked(gu), of adjacent weights;
// the gradient of gu where dh = dy w_down has no other use, and so is not stored.
struct GatedProduct {
  Value gu_2F, h_F;
};
GatedProduct LinearSwiglu(GraphBuilder& g, Value x_K, Value gate_FK, Value up_FK, SourceLoc loc = SourceLoc::Here());
Value LinearDxSwiglu(GraphBuilder& g, Value dy_N, Value down_NF, Value gu_2F, SourceLoc loc = SourceLoc::Here());

// pre[..., F] = LinearBias(x, w, bias) and h = gelu(pre); the gradient of pre where dh = dy w has no other use, and so is not
// stored.
struct GeluProduct {
  Value pre_F, h_F;
};
GeluProduct LinearBiasGelu(GraphBuilder& g, Value x_K, Value w_FK, Value bias_F, GeluKind kind,
                           SourceLoc loc = SourceLoc::Here());
Value LinearDxGelu(GraphBuilder& g, Value dy_N, Value w_NF, Value pre_F, GeluKind kind,
                   SourceLoc loc = SourceLoc::Here());
// And BiasGradAcc of it.
struct GeluGradient {
  Value acc_F, dpre_F;
};
GeluGradient LinearDxGeluAcc(GraphBuilder& g, Value acc_F, Value dy_N, Value w_NF, Value pre_F, GeluKind kind,
                             bool always_add, SourceLoc loc = SourceLoc::Here());

// All gradients of a norm in one reading of dy and x; r (or none), the gradient that reaches x by its other use, is added
// to dx, which may be computed in r's storage.
struct NormGrads {
  Value dx_BSE, dw_E, db_E{};
};
NormGrads RmsNormBwd(GraphBuilder& g, Value dy_BSE, Value x_BSE, Value w_E, Value rstd_BS1, Value r_BSE,
                     SourceLoc loc = SourceLoc::Here());
NormGrads LayerNormBwd(GraphBuilder& g, Value dy_BSE, Value x_BSE, Value w_E, Value mean_BS1, Value rstd_BS1,
                       Value r_BSE, SourceLoc loc = SourceLoc::Here());
// And the sum of its dx over all dims but the last in the accumulator dtype: the gradient of a bias that was added to x (BiasGrad of
// dx; kernels may add dx before it is rounded).
struct NormGradsAndSum {
  NormGrads norm;
  Value dx_sum_E;
};
NormGradsAndSum LayerNormBwdSum(GraphBuilder& g, Value dy_BSE, Value x_BSE, Value w_E, Value mean_BS1, Value rstd_BS1,
                                Value r_BSE, SourceLoc loc = SourceLoc::Here());

// RmsNormBwd with one of `accs`, LayerNormBwd with two, LayerNormBwdSum with three, which take the sums [E] in their order: each is
// added to its accumulator (f32, or bf16 for what is added once) in that one's storage. mean: none of RMS norm.
struct NormGradsAdded {
  Value dx_BSE;
  std::vector<Value> accs_E;
};
NormGradsAdded NormBwdAcc(GraphBuilder& g, Value dy_BSE, Value x_BSE, Value w_E, Value mean_BS1, Value rstd_BS1,
                          std::span<const Value> accs_E, Value r_BSE, SourceLoc loc = SourceLoc::Here());

// sum weights * nll(z, targets) over a whole vocabulary (core/ops/cross_entropy.h): loss [] in the accumulator dtype, and
// with `seed` its gradient like z, times seed, which may be computed in z's storage.
Value SoftmaxNll(GraphBuilder& g, Value z_BSV, Value targets_BS, Value weights_BS, SourceLoc loc = SourceLoc::Here());
struct NllAndGrad {
  Value dz_BSV, loss;
};
NllAndGrad SoftmaxNllGrad(GraphBuilder& g, Value z_BSV, Value targets_BS, Value weights_BS, Value seed,
                          SourceLoc loc = SourceLoc::Here());

}  // namespace strata
