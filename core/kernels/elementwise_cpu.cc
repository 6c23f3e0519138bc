// s(x) = 1 / (1 + e^-x);  silu = x s;  silu' = s (1 + x (1 - s));  swiglu = silu(gate) up.

#include "core/ops/elementwise.h"

#include "core/kernels/cpu_kernels.h"
#include "core/kernels/cpu_util.h"
#include "core/kernels/exp_cpu.h"

namespace strata {
namespace {

constexpr auto kAdd = [](auto a, auto b) { return a + b; };
constexpr auto kMul = [](auto a, auto b) { return a * b; };

// out[i] = fn(in[i]...) over operands of types In.
template <typename Out, typename... In, typename Fn>
void Map(const KernelArgs& args, const Fn& fn, Out* out, const In*... in) {
  using C = ComputeType<Out>;
  ForTiles(args.pool, args.out[0].shape.elements(), kFlatTile, [&](int64_t begin, int64_t end) {
#pragma GCC ivdep  // `out` may be an operand itself
    for (int64_t i = begin; i < end; ++i) out[i] = static_cast<Out>(fn(static_cast<C>(in[i])...));
  });
}

template <typename T, const auto& kFn>
absl::Status Binary(const KernelArgs& a) {
  Map(a, kFn, a.out[0].as<T>(), a.in[0].as<const T>(), a.in[1].as<const T>());
  return absl::OkStatus();
}

template <typename T>
absl::Status RunScale(const KernelArgs& a) {
  const auto factor = static_cast<ComputeType<T>>(ScaleFactor(a.op));
  Map(
      a, [factor](auto x) { return factor * x; }, a.out[0].as<T>(), a.in[0].as<const T>());
  return absl::OkStatus();
}

// fn(i, x[i], s(x[i])) for every i; the exponentials are taken in blocks.
template <typename T, typename Fn>
void ForSigmoids(const KernelArgs& args, const T* x, const Fn& fn) {
  using C = ComputeType<T>;
  constexpr int64_t kBlock = 256;
  ForTiles(args.pool, args.out[0].shape.elements(), kFlatTile, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; b += kBlock) {
      const int64_t n = std::min(kBlock, end - b);
      C e[kBlock];
      for (int64_t i = 0; i < n; ++i) e[i] = -static_cast<C>(x[b + i]);
      ExpInPlace(e, n);
#pragma GCC ivdep
      for (int64_t i = 0; i < n; ++i) fn(b + i, static_cast<C>(x[b + i]), C(1) / (C(1) + e[i]));
    }
  });
}

template <typename T>
absl::Status RunSilu(const KernelArgs& a) {
  T* y = a.out[0].as<T>();
  ForSigmoids(a, a.in[0].as<const T>(), [=](int64_t i, auto x, auto s) { y[i] = static_cast<T>(x * s); });
  return absl::OkStatus();
}

template <typename T>
absl::Status RunSiluDx(const KernelArgs& a) {
  using C = ComputeType<T>;
  const T* dy = a.in[0].as<const T>();
  T* dx = a.out[0].as<T>();
  ForSigmoids(a, a.in[1].as<const T>(), [=](int64_t i, C x, C s) {
    dx[i] = static_cast<T>(static_cast<C>(dy[i]) * s * (C(1) + x * (C(1) - s)));
  });
  return absl::OkStatus();
}

template <typename T>
absl::Status RunSwiglu(const KernelArgs& a) {
  using C = ComputeType<T>;
  const T* up = a.in[1].as<const T>();
  T* y = a.out[0].as<T>();
  ForSigmoids(a, a.in[0].as<const T>(),
              [=](int64_t i, C gate, C s) { y[i] = static_cast<T>(gate * s * static_cast<C>(up[i])); });
  return absl::OkStatus();
}

template <typename T>
absl::Status RunSwigluDx(const KernelArgs& a) {
  using C = ComputeType<T>;
  const T *dy = a.in[0].as<const T>(), *up = a.in[2].as<const T>();
  T *dgate = a.out[0].as<T>(), *dup = a.out[1].as<T>();
  ForSigmoids(a, a.in[1].as<const T>(), [=](int64_t i, C gate, C s) {
    const C d = static_cast<C>(dy[i]);
    dgate[i] = static_cast<T>(d * static_cast<C>(up[i]) * s * (C(1) + gate * (C(1) - s)));
    dup[i] = static_cast<T>(d * gate * s);
  });
  return absl::OkStatus();
}

template <typename Acc, typename X>
void AddInto(const KernelArgs& a) {
  Acc* acc = a.out[0].as<Acc>();
  const X* x = a.in[1].as<const X>();
  if (a.overwrite) {
    Map(
        a, [](auto v) { return v; }, acc, x);
  } else {
    Map(a, kAdd, acc, a.in[0].as<const Acc>(), x);
  }
}

absl::Status RunAccumulate(const KernelArgs& a) {
  if (a.in[0].dtype == DType::kF64) AddInto<double, double>(a);
  if (a.in[0].dtype == DType::kF32 && a.in[1].dtype == DType::kF32) AddInto<float, float>(a);
  if (a.in[0].dtype == DType::kF32 && a.in[1].dtype == DType::kBF16) AddInto<float, BF16>(a);
  return absl::OkStatus();
}

}  // namespace

void AddElementwiseKernels(KernelTable& table) {
  AddForFloats(table, "add", []<typename T>() { return Kernel{Binary<T, kAdd>, nullptr, StreamingCost}; });
  AddForFloats(table, "mul", []<typename T>() { return Kernel{Binary<T, kMul>, nullptr, StreamingCost}; });
  AddForFloats(table, "scale", []<typename T>() { return Kernel{RunScale<T>, nullptr, StreamingCost}; });
  AddForFloats(table, "silu", []<typename T>() { return Kernel{RunSilu<T>, nullptr, StreamingCost}; });
  AddForFloats(table, "silu_dx", []<typename T>() { return Kernel{RunSiluDx<T>, nullptr, StreamingCost}; });
  AddForFloats(table, "swiglu", []<typename T>() { return Kernel{RunSwiglu<T>, nullptr, StreamingCost}; });
  AddForFloats(table, "swiglu_dx", []<typename T>() { return Kernel{RunSwigluDx<T>, nullptr, StreamingCost}; });
  for (DType t : {DType::kF64, DType::kF32}) table.Add("accumulate", t, {RunAccumulate, nullptr, StreamingCost});
}

}  // namespace strata
