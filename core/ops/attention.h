#pragma once
// Grouped-query attention without a score matrix: o = softmax(q k^T / sqrt(D)) v over the keys that a query may see: with
// kCausal those with pos_k <= pos_q, with kFull all. With starts i32 [B, S], kCausal only, those with
// start_q <= pos_k <= pos_q: the start of a query is the position of its document's first token, so that documents packed
// into one row do not see each other.
// Sources: Dao et al., "FlashAttention" (2022); Ainslie et al., "GQA" (2023).
// q[B, S, H, D], k and v[B, T, Hk, D], positions i32 [S] and [T], in any order. Query head h reads kv head h / (H / Hk),
// both by their index in the global tensor, so kv may be whole where q is sharded by heads. A query that may see no key
// gives 0.

#include <cstdint>

#include "core/graph/builder.h"

namespace strata {

enum class AttentionMask : uint8_t { kCausal, kFull };

// The op's second output is lse[B, S, H], the log of the softmax denominator (-inf: no key), in AccumulatorOf the dtype.
Value Attention(GraphBuilder& g, Value q_BSHD, Value k_BTHD, Value v_BTHD, Value pos_q_S, Value pos_k_T,
                AttentionMask mask, Value starts_BS = {}, SourceLoc loc = SourceLoc::Here());

struct AttentionGrads {
  Value dq_BSHD, dk_BTHD, dv_BTHD;  // of q's dtype; sums over queries and heads are kept in the accumulator dtype
};
AttentionGrads AttentionBwd(GraphBuilder& g, Value do_BSHD, Value q_BSHD, Value k_BTHD, Value v_BTHD, Value o_BSHD,
                            Value lse_BSH, Value pos_q_S, Value pos_k_T, AttentionMask mask, Value starts_BS = {},
                            SourceLoc loc = SourceLoc::Here());

AttentionMask AttentionMaskOf(const Op& op);  // of an "attention" or "attention_bwd"; for their kernels

}  // namespace strata
