#include "core/kernels/exp_cpu.h"

#include <cmath>

// One copy per vector width, chosen when the program loads. -ffp-contract=off keeps their results equal.
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
#define STRATA_VECTOR_CLONES \
  __attribute__((target_clones("avx512f", "avx2", "default"), optimize("O3,no-trapping-math")))
#else
#define STRATA_VECTOR_CLONES
#endif

namespace strata {

STRATA_VECTOR_CLONES void ExpInPlace(float* x, int64_t n) {
  constexpr float kRound = 0x1.8p23f;  // adding it rounds to an integer in the low mantissa bits
  constexpr float kLow = -87.33654f, kHigh = 89.0f;
  for (int64_t i = 0; i < n; ++i) {
    // Selects between constants, not branches around arithmetic: those would not vectorise.
    const uint32_t keep = x[i] < kLow ? 0u : ~0u;
    float v = x[i] < kLow ? kLow : x[i];
    v = v > kHigh ? kHigh : v;
    const float shifted = v * 1.44269504088896341f + kRound;
    const float k = shifted - kRound;
    const float r = v - k * 0.693359375f - k * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    const float mantissa = p * r * r + r + 1.0f;
    const uint32_t biased = __builtin_bit_cast(uint32_t, shifted) + 127;  // k + 127 in the low bits
    const float scale = __builtin_bit_cast(float, biased << 23);          // 2^k; infinity for k = 128
    x[i] = __builtin_bit_cast(float, __builtin_bit_cast(uint32_t, mantissa * scale) & keep);
  }
}

void ExpInPlace(double* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] = std::exp(x[i]);
}

}  // namespace strata
