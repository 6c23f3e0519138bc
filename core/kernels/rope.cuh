#pragma once
// What every kernel that turns heads does with a pair, so that bits are the same wherever it is done (core/ops/rope.h).

#include <cuda_runtime.h>

namespace strata {

// (u, v) turned by the angle of {cosine, sine}.
__device__ __forceinline__ void TurnPair(float& u, float& v, float2 angle) {
  const float x = __fmaf_rn(u, angle.x, -__fmul_rn(v, angle.y));
  v = __fmaf_rn(v, angle.x, __fmul_rn(u, angle.y));
  u = x;
}

}  // namespace strata
