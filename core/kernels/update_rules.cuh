#pragma once
// AdamW and SGD with momentum for the kernels of update.cuh, by the formulas of core/ops/optimizer.h. The step's scalars
// and the norm are read on the GPU.

#include <cmath>

#include "core/kernels/update.cuh"

namespace strata {

// Relative errors of at most 2^-23; of what is below 2^-126 the root is 0.
__device__ __forceinline__ float RootNear(float x) {
  float y;
  asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float ReciprocalNear(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// What gradients are multiplied by; max_norm 0: 1.
__device__ __forceinline__ float Clip(float max_norm, float norm) {
  return max_norm > 0 ? fminf(1.0f, max_norm / (norm + 1e-6f)) : 1.0f;
}

// With s = sqrt(1 - beta2^t), the same for every element:
//   w' = w - rate (m' / (sqrt(v') + s eps) + decay scale w),   rate = lr s / (1 - beta1^t),   scale = (1 - beta1^t) / s
// An element takes 9 float32 operations and two approximations, of a root and a reciprocal, each within 2^-23; the
// constants are within a few 2^-24, 1 - beta^t as -expm1(t ln beta) for every t. So is the update; w is rounded once. A
// second moment below 2^-126 counts as 0, so s eps as at least its root.
struct AdamWRule {
  static constexpr int kStates = 2;
  float beta1, beta2, of_m, of_v;  // what is kept of moments; 1 - beta1, sqrt(1 - beta2)
  float log_beta1, log_beta2;
  float eps, max_norm;
  explicit AdamWRule(const AdamWSpec& s)
      : beta1(static_cast<float>(s.beta1)),
        beta2(static_cast<float>(s.beta2)),
        of_m(static_cast<float>(1 - s.beta1)),
        of_v(static_cast<float>(std::sqrt(1 - s.beta2))),
        log_beta1(static_cast<float>(std::log(s.beta1))),
        log_beta2(static_cast<float>(std::log(s.beta2))),
        eps(static_cast<float>(s.eps)),
        max_norm(static_cast<float>(s.max_norm)) {}
  struct Constants {
    float beta1, beta2, of_m, of_v, eps, rate, decay_scale;  // of_m grad and (of_v grad)^2 are what is added to m and v
  };
  __device__ Constants At(const StepScalars& now, float norm) const {
    const auto t = static_cast<float>(now.step);
    const float first = -expm1f(t * log_beta1), s = sqrtf(-expm1f(t * log_beta2)), clip = Clip(max_norm, norm);
    return {beta1,    beta2, of_m * clip, of_v * clip, fmaxf(s * eps, 0x1p-63f), static_cast<float>(now.lr) * s / first,
            first / s};
  }
  static __device__ __forceinline__ float Decay(const Constants& c, float decay) {
    return __fmul_rn(c.decay_scale, decay);
  }
  static __device__ __forceinline__ void Update(const Constants& c, float decay, float grad, float& w, float* state) {
    float &m = state[0], &v = state[1];
    const float g = __fmul_rn(grad, c.of_v);
    m = fmaf(c.beta1, m, __fmul_rn(grad, c.of_m));
    v = fmaf(g, g, __fmul_rn(c.beta2, v));
    const float over = ReciprocalNear(__fadd_rn(RootNear(v), c.eps));
    w = fmaf(-c.rate, fmaf(m, over, __fmul_rn(decay, w)), w);
  }
};

struct SgdRule {
  static constexpr int kStates = 1;
  float momentum, max_norm;
  bool nesterov;
  explicit SgdRule(const SgdSpec& s)
      : momentum(static_cast<float>(s.momentum)), max_norm(static_cast<float>(s.max_norm)), nesterov(s.nesterov) {}
  struct Constants {
    float clip, momentum, lr;
    bool nesterov;
  };
  __device__ Constants At(const StepScalars& now, float norm) const {
    return {Clip(max_norm, norm), momentum, static_cast<float>(now.lr), nesterov};
  }
  static __device__ __forceinline__ float Decay(const Constants&, float decay) { return decay; }
  static __device__ __forceinline__ void Update(const Constants& c, float decay, float grad, float& w, float* state) {
    float& u = state[0];
    const float g = fmaf(decay, w, __fmul_rn(grad, c.clip));
    u = fmaf(c.momentum, u, g);
    w = fmaf(-c.lr, c.nesterov ? fmaf(c.momentum, u, g) : u, w);
  }
};

}  // namespace strata
