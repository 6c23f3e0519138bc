#pragma once
// gelu and its gradient of spans (core/ops/gelu.h), for kernels on the CPU. Elements are read before those of the same index are
// written, so an output may be an operand.
// Both kinds are x c(x): kErf with c = (1 + erf(x / sqrt 2)) / 2, and so c' = exp(-x^2 / 2) / sqrt(2 pi); kTanh with
// c = 1 / (1 + exp(-u)), u = 2 sqrt(2 / pi) (x + 0.044715 x^3), and so c' = c (1 - c) u'. The gradient is c + x c'.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>

#include "core/kernels/cpu_util.h"
#include "core/kernels/exp_cpu.h"
#include "core/ops/gelu.h"

namespace strata {
namespace gelu_internal {

constexpr int64_t kBlock = 256;
constexpr double kCube = 0.044715;
constexpr double kSlope = 2 * std::numbers::sqrt2 * std::numbers::inv_sqrtpi;  // 2 sqrt(2 / pi)

// c(x[i]) for a block of n.
template <typename C>
void Cdf(GeluKind kind, const C* x, int64_t n, C* c) {
  if (kind == GeluKind::kErf) {
    for (int64_t i = 0; i < n; ++i) c[i] = C(0.5) * (C(1) + std::erf(x[i] * C(1 / std::numbers::sqrt2)));
    return;
  }
  for (int64_t i = 0; i < n; ++i) c[i] = -C(kSlope) * (x[i] + C(kCube) * x[i] * x[i] * x[i]);
  ExpInPlace(c, n);
  for (int64_t i = 0; i < n; ++i) c[i] = C(1) / (C(1) + c[i]);
}

// c'(x[i]), given c.
template <typename C>
void Density(GeluKind kind, const C* x, const C* c, int64_t n, C* d) {
  if (kind == GeluKind::kTanh) {
    for (int64_t i = 0; i < n; ++i) d[i] = c[i] * (C(1) - c[i]) * C(kSlope) * (C(1) + C(3 * kCube) * x[i] * x[i]);
    return;
  }
  for (int64_t i = 0; i < n; ++i) d[i] = C(-0.5) * x[i] * x[i];
  ExpInPlace(d, n);
  for (int64_t i = 0; i < n; ++i) d[i] *= C(std::numbers::inv_sqrtpi / std::numbers::sqrt2);
}

// fn(first, n, x as C) for blocks of the span.
template <typename T, typename Fn>
void ForBlocks(const T* x, int64_t count, const Fn& fn) {
  using C = ComputeType<T>;
  for (int64_t first = 0; first < count; first += kBlock) {
    const int64_t n = std::min(kBlock, count - first);
    C wide[kBlock];
    for (int64_t i = 0; i < n; ++i) wide[i] = static_cast<C>(x[first + i]);
    fn(first, n, wide);
  }
}

}  // namespace gelu_internal

template <typename T>
void GeluSpan(GeluKind kind, const T* x, T* y, int64_t count) {
  using C = ComputeType<T>;
  gelu_internal::ForBlocks(x, count, [=](int64_t first, int64_t n, const C* wide) {
    C c[gelu_internal::kBlock];
    gelu_internal::Cdf(kind, wide, n, c);
    for (int64_t i = 0; i < n; ++i) y[first + i] = static_cast<T>(wide[i] * c[i]);
  });
}

template <typename T>
void GeluDxSpan(GeluKind kind, const T* dy, const T* x, T* dx, int64_t count) {
  using C = ComputeType<T>;
  gelu_internal::ForBlocks(x, count, [=](int64_t first, int64_t n, const C* wide) {
    C c[gelu_internal::kBlock], d[gelu_internal::kBlock];
    gelu_internal::Cdf(kind, wide, n, c);
    gelu_internal::Density(kind, wide, c, n, d);
    for (int64_t i = 0; i < n; ++i) {
      dx[first + i] = static_cast<T>(static_cast<C>(dy[first + i]) * (c[i] + wide[i] * d[i]));
    }
  });
}

}  // namespace strata
