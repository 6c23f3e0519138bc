// s(x) = 1 / (1 + e^-x);  silu = x s;  silu' = s (1 + x (1 - s));  swiglu = silu(gate) up.

#include "core/ops/elementwise.h"

#include "core/kernels/cpu_kernels.h"
#include "core/kernels/cpu_util.h"
#include "core/kernels/swiglu_cpu.h"

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

template <typename Fn>  // fn(begin, count) over the elements of the output
void ForSpans(const KernelArgs& args, const Fn& fn) {
  ForTiles(args.pool, args.out[0].shape.elements(), kFlatTile,
           [&](int64_t begin, int64_t end) { fn(begin, end - begin); });
}

template <typename T>
absl::Status RunSilu(const KernelArgs& a) {
  ForSpans(a, [&](int64_t at, int64_t n) {
    T* y = a.out[0].as<T>() + at;
    ForSigmoids(a.in[0].as<const T>() + at, n, [=](int64_t i, auto x, auto s) { y[i] = static_cast<T>(x * s); });
  });
  return absl::OkStatus();
}

template <typename T>
absl::Status RunSiluDx(const KernelArgs& a) {
  using C = ComputeType<T>;
  ForSpans(a, [&](int64_t at, int64_t n) {
    const T* dy = a.in[0].as<const T>() + at;
    T* dx = a.out[0].as<T>() + at;
    ForSigmoids(a.in[1].as<const T>() + at, n, [=](int64_t i, C x, C s) {
      dx[i] = static_cast<T>(static_cast<C>(dy[i]) * s * (C(1) + x * (C(1) - s)));
    });
  });
  return absl::OkStatus();
}

template <typename T>
absl::Status RunSwiglu(const KernelArgs& a) {
  ForSpans(a, [&](int64_t at, int64_t n) {
    SwigluSpan(a.in[0].as<const T>() + at, a.in[1].as<const T>() + at, a.out[0].as<T>() + at, n);
  });
  return absl::OkStatus();
}

template <typename T>
absl::Status RunSwigluDx(const KernelArgs& a) {  // dy, gate, up
  ForSpans(a, [&](int64_t at, int64_t n) {
    SwigluDxSpan(a.in[0].as<const T>() + at, a.in[1].as<const T>() + at, a.in[2].as<const T>() + at,
                 a.out[0].as<T>() + at, a.out[1].as<T>() + at, n);
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
  if (a.in[0].dtype == DType::kBF16 && a.in[1].dtype == DType::kF32) AddInto<BF16, float>(a);
  if (a.in[0].dtype == DType::kBF16 && a.in[1].dtype == DType::kBF16) AddInto<BF16, BF16>(a);
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
  for (DType t : {DType::kF64, DType::kF32, DType::kBF16}) {
    table.Add("accumulate", t, {RunAccumulate, nullptr, StreamingCost});
  }
}

}  // namespace strata
