// Both kinds are x c(x): kErf with c = (1 + erf(x / sqrt 2)) / 2, and so c' = exp(-x^2 / 2) / sqrt(2 pi); kTanh with
// c = 1 / (1 + exp(-u)), u = 2 sqrt(2 / pi) (x + 0.044715 x^3), and so c' = c (1 - c) u'. The gradient is c + x c'.
#include <cmath>
#include <numbers>

#include "core/kernels/cpu_kernels.h"
#include "core/kernels/cpu_util.h"
#include "core/kernels/exp_cpu.h"
#include "core/ops/gelu.h"

namespace strata {
namespace {

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

// fn(first, n, x as C) for blocks of the flat tensor.
template <typename T, typename Fn>
void ForBlocks(const KernelArgs& a, const T* x, const Fn& fn) {
  using C = ComputeType<T>;
  ForTiles(a.pool, a.out[0].shape.elements(), kFlatTile, [&](int64_t begin, int64_t end) {
    for (int64_t first = begin; first < end; first += kBlock) {
      const int64_t n = std::min(kBlock, end - first);
      C wide[kBlock];
      for (int64_t i = 0; i < n; ++i) wide[i] = static_cast<C>(x[first + i]);
      fn(first, n, wide);
    }
  });
}

template <typename T>
absl::Status Forward(const KernelArgs& a) {
  using C = ComputeType<T>;
  const GeluKind kind = GeluKindOf(a.op);
  ForBlocks(a, a.in[0].as<const T>(), [&](int64_t first, int64_t n, const C* x) {
    C c[kBlock];
    Cdf(kind, x, n, c);
    T* y = a.out[0].as<T>() + first;
    for (int64_t i = 0; i < n; ++i) y[i] = static_cast<T>(x[i] * c[i]);
  });
  return absl::OkStatus();
}

template <typename T>
absl::Status Dx(const KernelArgs& a) {
  using C = ComputeType<T>;
  const GeluKind kind = GeluKindOf(a.op);
  ForBlocks(a, a.in[1].as<const T>(), [&](int64_t first, int64_t n, const C* x) {
    C c[kBlock], d[kBlock];
    Cdf(kind, x, n, c);
    Density(kind, x, c, n, d);
    const T* dy = a.in[0].as<const T>() + first;
    T* dx = a.out[0].as<T>() + first;
    for (int64_t i = 0; i < n; ++i) dx[i] = static_cast<T>(static_cast<C>(dy[i]) * (c[i] + x[i] * d[i]));
  });
  return absl::OkStatus();
}

}  // namespace

void AddGeluKernels(KernelTable& table) {
  AddForFloats(table, "gelu", []<typename T>() { return Kernel{Forward<T>, nullptr, StreamingCost}; });
  AddForFloats(table, "gelu_dx", []<typename T>() { return Kernel{Dx<T>, nullptr, StreamingCost}; });
}

}  // namespace strata
