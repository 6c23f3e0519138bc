#pragma once
// AdamW and SGD with momentum for the kernels of update.cuh, by the formulas of core/ops/optimizer.h. The step's scalars
// and the norm are read on the GPU.

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

// What gradients are multiplied by.
__device__ __forceinline__ float Clip(double max_norm, float norm) {
  return max_norm > 0 ? static_cast<float>(fmin(1.0, max_norm / (static_cast<double>(norm) + 1e-6))) : 1.0f;
}

// With s = sqrt(1 - beta2^t), the same for every element:
//   w' = w - rate (m' / (sqrt(v') + s eps) + decay scale w),   rate = lr s / (1 - beta1^t),   scale = (1 - beta1^t) / s
// An element takes 9 float32 operations and two approximations, of a root and a reciprocal, each within 2^-23. The update
// is within 9 x 2^-24, no more than by an exact root and division after products with each constant; w is rounded once. A
// second moment below 2^-126 counts as 0, so s eps as at least its root.
struct AdamWRule {
  static constexpr int kStates = 2;
  double beta1, beta2, eps, max_norm;
  struct Constants {
    float beta1, beta2, of_m, of_v, eps, rate, decay_scale;  // of_m grad and (of_v grad)^2 are what is added to m and v
  };
  __device__ Constants At(const StepScalars& now, float norm) const {
    const auto t = static_cast<double>(now.step);
    const double first = 1 - pow(beta1, t), s = sqrt(1 - pow(beta2, t));
    const double clip = Clip(max_norm, norm);
    return {static_cast<float>(beta1),
            static_cast<float>(beta2),
            static_cast<float>((1 - beta1) * clip),
            static_cast<float>(sqrt(1 - beta2) * clip),
            fmaxf(static_cast<float>(s * eps), 0x1p-63f),
            static_cast<float>(now.lr * s / first),
            static_cast<float>(first / s)};
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
  double momentum, max_norm;
  bool nesterov;
  struct Constants {
    float clip, momentum, lr;
    bool nesterov;
  };
  __device__ Constants At(const StepScalars& now, float norm) const {
    return {Clip(max_norm, norm), static_cast<float>(momentum), static_cast<float>(now.lr), nesterov};
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
