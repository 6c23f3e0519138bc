#pragma once
// s(x) = 1 / (1 + e^-x) and swiglu = silu(gate) up of spans, for kernels on the CPU. Elements are read before those of the same
// index are written, so an output may be an operand.

#include <algorithm>
#include <cstdint>

#include "core/kernels/cpu_util.h"
#include "core/kernels/exp_cpu.h"

namespace strata {

// fn(i, x[i], s(x[i])) for i in [0, n); the exponentials are taken in blocks.
template <typename T, typename Fn>
void ForSigmoids(const T* x, int64_t n, const Fn& fn) {
  using C = ComputeType<T>;
  constexpr int64_t kBlock = 256;
  for (int64_t b = 0; b < n; b += kBlock) {
    const int64_t count = std::min(kBlock, n - b);
    C e[kBlock];
    for (int64_t i = 0; i < count; ++i) e[i] = -static_cast<C>(x[b + i]);
    ExpInPlace(e, count);
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) fn(b + i, static_cast<C>(x[b + i]), C(1) / (C(1) + e[i]));
  }
}

template <typename T>
void SwigluSpan(const T* gate, const T* up, T* h, int64_t n) {
  using C = ComputeType<T>;
  ForSigmoids(gate, n, [=](int64_t i, C x, C s) { h[i] = static_cast<T>(x * s * static_cast<C>(up[i])); });
}

template <typename T>
void SwigluDxSpan(const T* dh, const T* gate, const T* up, T* dgate, T* dup, int64_t n) {
  using C = ComputeType<T>;
  ForSigmoids(gate, n, [=](int64_t i, C x, C s) {
    const C d = static_cast<C>(dh[i]);
    dgate[i] = static_cast<T>(d * static_cast<C>(up[i]) * s * (C(1) + x * (C(1) - s)));
    dup[i] = static_cast<T>(d * x * s);
  });
}

}  // namespace strata
