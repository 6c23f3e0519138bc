#pragma once
// Fusion on a rank's local graph, after sharding and buckets: groups of plain nodes become ops of core/ops/fused.h, where
// the back end has kernels for them. Which groups:
//   accumulate(g, linear_dw), embedding_dw, bias_grad, through adds -> linear_dw_acc, embedding_dw_acc, bias_grad_acc
//   pack of sums of several linear_dw, embedding_dw                 -> the same, into the part
//   linear of one x by adjacent wq, wk, wv; rope; attention         -> linear_rope, attention_packed
//   gradient of attention, inverse rope                             -> attention_rope_bwd
//   the same with biases                                            -> linear_packed_bias, rope_packed, attention_packed
//   the same without rope                                           -> linear_packed(_bias), attention_packed
//   attention of other operands                                     -> heads_packed, attention_packed, heads_unpacked
//   linear of one x by adjacent gate, up; swiglu                    -> linear_swiglu
//   its gradient; linear_dx before it that has no other reader      -> linear_dx_swiglu; or swiglu_packed_dx
//   swiglu that backward recomputes from what forward kept          -> swiglu_packed
//   gradients of those weights (and biases)                         -> one linear_dw_acc; or one linear_dw, one part of pack
//   gelu(bias_add(linear)); gelu_dx(linear_dx), with no other reader -> linear_bias_gelu; linear_dx_gelu
//   linear_dx_gelu, bias_grad_acc of what it makes                  -> linear_dx_gelu_acc
//   add(r, linear), bias_add(linear), add(r, bias_add(linear))      -> linear_add, linear_bias, linear_bias_add
//   add(r, linear_dx), add(r, linear_packed_dx)                     -> linear_dx_add
//   rms_norm_dx, rms_norm_dw, add (likewise layer norm)             -> rms_norm_bwd
//   layer_norm_bwd, bias_grad(_acc) of all that it makes            -> layer_norm_bwd_sum (, accumulate)
//   either, accumulate of every sum that it makes                   -> rms_norm_bwd_acc, layer_norm_bwd(_sum)_acc
//   vocab_max, vocab_sum_exp, vocab_pick, nll, softmax_grad         -> softmax_nll, softmax_nll_grad
// A group that does not match whole (a collective in between, weights that are not adjacent) stays as it is.

#include "absl/status/statusor.h"
#include "core/exec/device.h"
#include "core/graph/graph.h"

namespace strata {

absl::StatusOr<Graph> FuseOps(Graph local, const Mesh& mesh, const KernelTable& kernels);

// Of a step of one micro-batch, after FuseOps: what writes gradients as the norm reads them, with no reduction in between,
// makes the parts of their sum of squares too (linear_dw_acc -> linear_dw_acc_squares, embedding_dw_acc ->
// embedding_dw_acc_squares), in states "grad_squares<n>". One total_squares per sum adds these and reads what other kernels have
// written, where there was a sum_squares per bucket. With several micro-batches the sums would be made in each of them, of what
// the last one alone completes.
absl::StatusOr<Graph> FuseSquares(Graph local, const Mesh& mesh, const KernelTable& kernels);

}  // namespace strata
