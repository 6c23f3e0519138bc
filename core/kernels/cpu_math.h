#pragma once
// What the CPU kernels share: the arithmetic type of a storage type and sums in a fixed order.

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "core/tensor/tensor.h"

namespace strata {

// f64 computes in double, f32 and bf16 in float. static_cast converts in both directions.
template <typename T>
using Compute = std::conditional_t<std::is_same_v<T, double>, double, float>;

// Sum of term(i) for i in [0, n) over eight interleaved partial sums: fixed order, more exact than one, and it vectorises.
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

constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace strata
