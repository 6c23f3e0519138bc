// s(x) = 1 / (1 + e^-x);  silu = x s;  silu' = s (1 + x (1 - s));  swiglu = silu(gate) up.
// gelu (core/kernels/gelu_cpu.h): x c(x), gradient c + x c'; kErf with c = (1 + erf(x / sqrt 2)) / 2 and
// c' = exp(-x^2 / 2) / sqrt(2 pi); kTanh with c = s(u), u = 2 sqrt(2 / pi) (x + 0.044715 x^3) and c' = c (1 - c) u'.
#include "core/kernels/cost.h"
#include "core/kernels/gelu_cuda.h"
#include "core/kernels/map.cuh"
#include "core/kernels/swiglu_cuda.h"
#include "core/ops/elementwise.h"
#include "core/ops/gelu.h"

namespace strata {
namespace {

struct AddFn {
  __device__ void operator()(const float* x, float* y) const { y[0] = x[0] + x[1]; }
};
struct MulFn {
  __device__ void operator()(const float* x, float* y) const { y[0] = x[0] * x[1]; }
};
struct ScaleFn {
  float factor;
  __device__ void operator()(const float* x, float* y) const { y[0] = factor * x[0]; }
};
struct SecondFn {
  __device__ void operator()(const float* x, float* y) const { y[0] = x[1]; }
};
template <typename T>
struct SiluFn {
  __device__ void operator()(const float* x, float* y) const { y[0] = x[0] * Sigmoid<T>(x[0]); }
};
template <typename T>
struct SiluDxFn {  // dy, x
  __device__ void operator()(const float* x, float* y) const {
    const float s = Sigmoid<T>(x[1]);
    y[0] = x[0] * s * (1.0f + x[1] * (1.0f - s));
  }
};
template <typename T>
struct SwigluFn {  // gate, up
  __device__ void operator()(const float* x, float* y) const { y[0] = x[0] * Sigmoid<T>(x[0]) * x[1]; }
};
template <typename T>
struct SwigluDxFn {  // dy, gate, up
  __device__ void operator()(const float* x, float* y) const {
    const float s = Sigmoid<T>(x[1]);
    y[0] = x[0] * x[2] * s * (1.0f + x[1] * (1.0f - s));
    y[1] = x[0] * x[1] * s;
  }
};

constexpr float kCube = 0.044715f, kSlope = 1.5957691216057308f;  // 2 sqrt(2 / pi)
constexpr float kInvSqrt2 = 0.70710678118654752f, kInvSqrt2Pi = 0.39894228040143268f;

template <typename T, GeluKind kKind>
__device__ __forceinline__ float Cdf(float x) {
  if constexpr (kKind == GeluKind::kErf) return 0.5f * (1.0f + erff(x * kInvSqrt2));
  return Sigmoid<T>(kSlope * x * (1.0f + kCube * x * x));
}
template <typename T, GeluKind kKind>
struct GeluFn {
  __device__ void operator()(const float* x, float* y) const { y[0] = x[0] * Cdf<T, kKind>(x[0]); }
};
template <typename T, GeluKind kKind>
struct GeluDxFn {  // dy, x
  __device__ void operator()(const float* v, float* y) const {
    const float x = v[1], c = Cdf<T, kKind>(x);
    const float density = kKind == GeluKind::kErf ? kInvSqrt2Pi * Exp<T>(-0.5f * x * x)
                                                  : c * (1.0f - c) * kSlope * (1.0f + 3 * kCube * x * x);
    y[0] = v[0] * (c + x * density);
  }
};

template <typename T, typename Fn>
absl::Status Unary(const KernelArgs& a) {
  return MapFlat<T, 1, T>(a, Fn{});
}
template <typename T, typename Fn>
absl::Status Binary(const KernelArgs& a) {
  return MapFlat<T, 1, T, T>(a, Fn{});
}

template <typename T>
absl::Status RunScale(const KernelArgs& a) {
  return MapFlat<T, 1, T>(a, ScaleFn{static_cast<float>(ScaleFactor(a.op))});
}
template <typename T>
absl::Status RunSwigluDx(const KernelArgs& a) {
  return MapFlat<T, 2, T, T, T>(a, SwigluDxFn<T>{});
}

template <typename T>
void LaunchSwiglu(const SwigluCall& c, cudaStream_t stream) {
  const T* gu = static_cast<const T*>(c.gu);
  Map<1>(stream, SwigluFn<T>{}, c.rows, c.F, PitchedOut<T, 1>{{{static_cast<T*>(c.h), c.F}}},
         Pitched<const T>{gu, 2 * c.F}, Pitched<const T>{gu + c.F, 2 * c.F});
}

template <typename T>
void LaunchSwigluDx(const SwigluDxCall& c, cudaStream_t stream) {
  const T* gu = static_cast<const T*>(c.gu);
  T* dgu = static_cast<T*>(c.dgu);
  Map<2>(stream, SwigluDxFn<T>{}, c.rows, c.F, PitchedOut<T, 2>{{{dgu, 2 * c.F}, {dgu + c.F, 2 * c.F}}},
         Pitched<const T>{static_cast<const T*>(c.dh), c.dh_pitch}, Pitched<const T>{gu, 2 * c.F},
         Pitched<const T>{gu + c.F, 2 * c.F});
}

absl::Status RunSwigluPacked(const KernelArgs& a) {
  const TensorRef& h = a.out[0];
  return SwigluForward({h.dtype, RowsOf(h), h.shape.back(), a.in[0].data, h.data}, StreamOf(a));
}
absl::Status RunSwigluPackedDx(const KernelArgs& a) {  // dh, y
  const TensorRef& dh = a.in[0];
  const int64_t F = dh.shape.back();
  return SwigluBackward({dh.dtype, RowsOf(dh), F, a.in[1].data, dh.data, F, a.out[0].data}, StreamOf(a));
}

template <typename Acc, typename X>
absl::Status AddInto(const KernelArgs& a) {
  return a.overwrite ? MapFlat<Acc, 1, Acc, X>(a, SecondFn{}) : MapFlat<Acc, 1, Acc, X>(a, AddFn{});
}
template <typename Acc>
absl::Status RunAccumulate(const KernelArgs& a) {  // acc, x f32 or bf16
  return a.in[1].dtype == DType::kBF16 ? AddInto<Acc, CudaBF16>(a) : AddInto<Acc, float>(a);
}

template <typename T, GeluKind kKind>
void LaunchGelu(const GeluCall& c, cudaStream_t stream) {
  const PitchedOut<T, 1> y{{{static_cast<T*>(c.y), 0}}};
  const Pitched<const T> x{static_cast<const T*>(c.x), 0}, dy{static_cast<const T*>(c.dy), 0};
  if (c.dy == nullptr) {
    Map<1>(stream, GeluFn<T, kKind>{}, 1, c.count, y, x);
  } else {
    Map<1>(stream, GeluDxFn<T, kKind>{}, 1, c.count, y, dy, x);
  }
}

absl::Status RunGeluForward(const KernelArgs& a) {
  const TensorRef& x = a.in[0];
  return RunGelu({x.dtype, GeluKindOf(a.op), x.shape.elements(), x.data, nullptr, a.out[0].data}, StreamOf(a));
}
absl::Status RunGeluDx(const KernelArgs& a) {  // dy, x
  const TensorRef& x = a.in[1];
  return RunGelu({x.dtype, GeluKindOf(a.op), x.shape.elements(), x.data, a.in[0].data, a.out[0].data}, StreamOf(a));
}

template <typename T>
void AddFor(KernelTable& table, DType dtype) {
  const auto add = [&](const char* op, absl::Status (*run)(const KernelArgs&)) {
    table.Add(op, dtype, {.run = run, .cost = StreamingCost});
  };
  add("add", Binary<T, AddFn>);
  add("mul", Binary<T, MulFn>);
  add("scale", RunScale<T>);
  add("silu", Unary<T, SiluFn<T>>);
  add("silu_dx", Binary<T, SiluDxFn<T>>);
  add("swiglu", Binary<T, SwigluFn<T>>);
  add("swiglu_dx", RunSwigluDx<T>);
  add("swiglu_packed", RunSwigluPacked);
  add("swiglu_packed_dx", RunSwigluPackedDx);
  add("gelu", RunGeluForward);
  add("gelu_dx", RunGeluDx);
}

}  // namespace

absl::Status SwigluForward(const SwigluCall& call, cudaStream_t stream) {
  call.dtype == DType::kBF16 ? LaunchSwiglu<CudaBF16>(call, stream) : LaunchSwiglu<float>(call, stream);
  return Launched("swiglu_packed");
}
absl::Status SwigluBackward(const SwigluDxCall& call, cudaStream_t stream) {
  call.dtype == DType::kBF16 ? LaunchSwigluDx<CudaBF16>(call, stream) : LaunchSwigluDx<float>(call, stream);
  return Launched("swiglu_packed_dx");
}

absl::Status RunGelu(const GeluCall& call, cudaStream_t stream) {
  const bool narrow = call.dtype == DType::kBF16;
  if (call.kind == GeluKind::kErf) {
    narrow ? LaunchGelu<CudaBF16, GeluKind::kErf>(call, stream) : LaunchGelu<float, GeluKind::kErf>(call, stream);
  } else {
    narrow ? LaunchGelu<CudaBF16, GeluKind::kTanh>(call, stream) : LaunchGelu<float, GeluKind::kTanh>(call, stream);
  }
  return Launched("gelu");
}

void AddCudaElementwiseKernels(KernelTable& table) {
  AddFor<float>(table, DType::kF32);
  AddFor<CudaBF16>(table, DType::kBF16);
  table.Add("accumulate", DType::kF32, {.run = RunAccumulate<float>, .cost = StreamingCost});
  table.Add("accumulate", DType::kBF16, {.run = RunAccumulate<CudaBF16>, .cost = StreamingCost});
}

}  // namespace strata
