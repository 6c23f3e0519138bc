// Rotary position embedding on the CPU (core/ops/rope.h has the maths). The workspace holds cos and sin [N, D/2] each of
// the N positions, made once and used for every head, and for every batch row where the positions are [S].
#include <cmath>

#include "core/kernels/cpu_kernels.h"
#include "core/kernels/cpu_util.h"
#include "core/ops/rope.h"

namespace strata {
namespace {

template <typename T>
int64_t Workspace(const Op&, std::span<const TensorRef> in) {
  return in[1].shape.elements() * in[0].shape[3] * static_cast<int64_t>(sizeof(ComputeType<T>));
}

template <typename T>
absl::Status Run(const KernelArgs& a) {
  using C = ComputeType<T>;
  const Shape& shape = a.in[0].shape;
  const int64_t B = shape[0], S = shape[1], H = shape[2], D = shape[3], half = D / 2;
  const int64_t N = a.in[1].shape.elements();
  const RopeAttributes& rope = RopeAttributesOf(a.op);
  const double sign = rope.direction == RopeDirection::kForward ? 1 : -1;
  C* const cosine = reinterpret_cast<C*>(a.workspace.data());
  C* const sine = cosine + N * half;
  ParallelFor(a.pool, half, [&](int64_t i) {
    const double frequency =
        ScaledFrequency(rope.scaling, std::pow(rope.theta, -2.0 * static_cast<double>(i) / static_cast<double>(D)));
    for (int64_t n = 0; n < N; ++n) {
      const double angle = a.in[1].as<int32_t>()[n] * frequency;
      cosine[n * half + i] = static_cast<C>(std::cos(angle));
      sine[n * half + i] = static_cast<C>(sign * std::sin(angle));
    }
  });
  ParallelFor(a.pool, B * S, [&](int64_t token) {
    const C* c = cosine + token % N * half;
    const C* s = sine + token % N * half;
    for (int64_t h = 0; h < H; ++h) {
      const T* x = a.in[0].as<T>() + (token * H + h) * D;
      T* y = a.out[0].as<T>() + (token * H + h) * D;
      for (int64_t i = 0; i < half; ++i) {
        const C u = static_cast<C>(x[i]), v = static_cast<C>(x[i + half]);
        y[i] = static_cast<T>(u * c[i] - v * s[i]);
        y[i + half] = static_cast<T>(v * c[i] + u * s[i]);
      }
    }
  });
  return absl::OkStatus();
}

}  // namespace

void AddRopeKernels(KernelTable& table) {
  AddForFloats(table, "rope", []<typename T>() { return Kernel{Run<T>, Workspace<T>, StreamingCost}; });
}

}  // namespace strata
