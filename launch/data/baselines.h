#pragma once
// What a model must beat: count models, in nats a token on the validation stream. All three predict the same tokens as
// the model does: every token of `valid` but the first, from the one before it. V = vocab_size, N = training tokens,
// c(.) = counts in the training stream.
//   uniform  ln V
//   unigram  p(w) = (c(w) + 1) / (N + V)
//   bigram   p(w | v) = max(c(v w) - D, 0) / c(v .) + D T(v) / c(v .) q(w)   (q(w) where v was never followed by anything)
//            interpolated Kneser-Ney (Ney, Essen and Kneser 1994; Chen and Goodman 1999): T(v) = number of different
//            tokens seen after v, D = n1 / (n1 + 2 n2) with n_k = number of different bigrams seen k times,
//            q(w) = (P(w) + 1) / (P + V), P(w) = number of different tokens seen before w, P = sum of P(w).

#include <cstdint>
#include <span>

namespace strata {

struct Baselines {
  double uniform = 0, unigram = 0, bigram = 0;  // nats a token
};

// Every id must be in [0, vocab_size) and valid must hold at least 2 tokens. Sorts a copy of the bigrams: 8 bytes a
// training token.
Baselines CountBaselines(std::span<const int32_t> train, std::span<const int32_t> valid, int64_t vocab_size);

}  // namespace strata
