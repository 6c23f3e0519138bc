#pragma once
// A sum in a fixed order.

#include <cstdint>

namespace strata {

// Sum of term(i) for i in [0, n) over eight interleaved partial sums: more exact than one, and it can vectorise.
template <typename C, typename Term>
C SumOf(int64_t n, Term term) {
  C lane[8] = {};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (int k = 0; k < 8; ++k) lane[k] += term(i + k);
  }
  for (; i < n; ++i) lane[i % 8] += term(i);
  return ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}

}  // namespace strata
