#pragma once
// Choosing the next token from logits.

#include <cstdint>
#include <span>

namespace strata {

struct SamplerOptions {
  double temperature = 1;  // 0: the likeliest token, the lowest id among equals
  int64_t top_k = 0;       // 0: any token
  double top_p = 1;        // the likeliest tokens that together have this probability (Holtzman et al. 2020); 1: all
  uint64_t seed = 1;
};

// A pure function of (logits, options, position): softmax(logits / temperature) over the top_k likeliest, and of
// those the fewest likeliest that reach top_p.
int32_t SampleToken(std::span<const double> logits, const SamplerOptions& options, uint64_t position);

}  // namespace strata
