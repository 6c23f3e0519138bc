#pragma once
// Rotations of heads on the CPU, for every kernel that has some: a table of angles, then heads of a token (core/ops/rope.h).

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "core/kernels/cpu_util.h"
#include "core/ops/rope.h"

namespace strata {

template <typename C>  // the arithmetic type
struct RopeTable {
  const C *cosine = nullptr, *sine = nullptr;  // [positions, half]
  int64_t positions = 0, half = 0;
};

template <typename C>
int64_t RopeTableBytes(int64_t positions, int64_t head_dim) {
  return positions * head_dim * static_cast<int64_t>(sizeof(C));
}

// Written at `to`, RopeTableBytes.
template <typename C>
RopeTable<C> MakeRopeTable(const RopeAttributes& rope, const TensorRef& positions, int64_t head_dim, std::byte* to,
                           ThreadPool* pool) {
  const int64_t N = positions.shape.elements(), half = head_dim / 2;
  const double sign = rope.direction == RopeDirection::kForward ? 1 : -1;
  C* const cosine = reinterpret_cast<C*>(to);
  C* const sine = cosine + N * half;
  ParallelFor(pool, half, [&](int64_t i) {
    const double frequency = ScaledFrequency(
        rope.scaling, std::pow(rope.theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim)));
    for (int64_t n = 0; n < N; ++n) {
      const double angle = positions.as<int32_t>()[n] * frequency;
      cosine[n * half + i] = static_cast<C>(std::cos(angle));
      sine[n * half + i] = static_cast<C>(sign * std::sin(angle));
    }
  });
  return {cosine, sine, N, half};
}

// `heads` heads of the token, side by side; token t has position t mod positions. y may be x.
template <typename T, typename C>
void TurnHeads(const RopeTable<C>& table, int64_t token, int64_t heads, const T* x, T* y) {
  const int64_t half = table.half;
  const C* c = table.cosine + token % table.positions * half;
  const C* s = table.sine + token % table.positions * half;
  for (int64_t h = 0; h < heads; ++h, x += 2 * half, y += 2 * half) {
    for (int64_t i = 0; i < half; ++i) {
      const C u = static_cast<C>(x[i]), v = static_cast<C>(x[i + half]);
      y[i] = static_cast<T>(u * c[i] - v * s[i]);
      y[i + half] = static_cast<T>(v * c[i] + u * s[i]);
    }
  }
}

}  // namespace strata
