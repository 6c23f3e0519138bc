// RMS norm on the CPU (core/ops/rms_norm.h has the maths). Tiles are fixed blocks of rows. d weight is summed in two
// passes: each block of rows into its own row of the workspace, then the rows in order.
#include <cmath>

#include "core/kernels/cpu_kernels.h"
#include "core/kernels/cpu_util.h"
#include "core/kernels/sum_cpu.h"
#include "core/kernels/sum_rows_cpu.h"
#include "core/ops/rms_norm.h"

namespace strata {
namespace {

int64_t Rows(const TensorRef& x) { return x.shape.back() > 0 ? x.shape.elements() / x.shape.back() : 0; }

template <typename T>
absl::Status Forward(const KernelArgs& a) {
  using C = ComputeType<T>;
  const int64_t E = a.in[0].shape.back();
  const C eps = static_cast<C>(EpsOf(a.op));
  const T* w = a.in[1].as<T>();
  ForTokens(a.pool, Rows(a.in[0]), [&](int64_t t) {
    const T* x = a.in[0].as<T>() + t * E;
    T* y = a.out[0].as<T>() + t * E;
    const C sum = SumOf<C>(E, [&](int64_t e) { return static_cast<C>(x[e]) * static_cast<C>(x[e]); });
    const C rstd = 1 / std::sqrt(sum / static_cast<C>(E) + eps);
    for (int64_t e = 0; e < E; ++e) y[e] = static_cast<T>(static_cast<C>(x[e]) * rstd * static_cast<C>(w[e]));
    a.out[1].as<C>()[t] = rstd;
  });
  return absl::OkStatus();
}

template <typename T>
absl::Status RunRsqrt(const KernelArgs& a) {
  using C = ComputeType<T>;
  const C eps = static_cast<C>(EpsOf(a.op));
  ForTiles(a.pool, a.out[0].shape.elements(), kFlatTile, [&](int64_t begin, int64_t end) {
    const T* x = a.in[0].as<T>();
    T* y = a.out[0].as<T>();
    for (int64_t i = begin; i < end; ++i) y[i] = static_cast<T>(1 / std::sqrt(static_cast<C>(x[i]) + eps));
  });
  return absl::OkStatus();
}

template <typename T>
absl::Status Dx(const KernelArgs& a) {
  using C = ComputeType<T>;
  const int64_t E = a.in[1].shape.back();
  const T* w = a.in[2].as<T>();
  ForTokens(a.pool, Rows(a.in[1]), [&](int64_t token) {
    const T* dy = a.in[0].as<T>() + token * E;
    const T* x = a.in[1].as<T>() + token * E;
    T* dx = a.out[0].as<T>() + token * E;
    const C rstd = a.in[3].as<C>()[token];
    const auto t = [&](int64_t e) { return static_cast<C>(dy[e]) * static_cast<C>(w[e]); };
    const C mean = SumOf<C>(E, [&](int64_t e) { return t(e) * static_cast<C>(x[e]); }) / static_cast<C>(E);
    const C scale = rstd * rstd * mean;
    for (int64_t e = 0; e < E; ++e) dx[e] = static_cast<T>(rstd * (t(e) - static_cast<C>(x[e]) * scale));
  });
  return absl::OkStatus();
}

template <typename T>
int64_t DwWorkspace(const Op&, std::span<const TensorRef> in) {
  return SumRowsWorkspace(Rows(in[1]), in[1].shape.back(), 1) * static_cast<int64_t>(sizeof(ComputeType<T>));
}

template <typename T>
absl::Status Dw(const KernelArgs& a) {
  using C = ComputeType<T>;
  const int64_t E = a.in[1].shape.back();
  C* const dw = a.out[0].as<C>();
  SumRows<C>(a.pool, Rows(a.in[1]), E, a.workspace, {&dw, 1}, [&](int64_t t, C* sum) {
    const T* dy = a.in[0].as<T>() + t * E;
    const T* x = a.in[1].as<T>() + t * E;
    const C rstd = a.in[2].as<C>()[t];
    for (int64_t e = 0; e < E; ++e) sum[e] += static_cast<C>(dy[e]) * static_cast<C>(x[e]) * rstd;
  });
  return absl::OkStatus();
}

}  // namespace

void AddNormKernels(KernelTable& table) {
  AddForFloats(table, "rms_norm", []<typename T>() { return Kernel{Forward<T>, nullptr, StreamingCost}; });
  AddForFloats(table, "rsqrt", []<typename T>() { return Kernel{RunRsqrt<T>, nullptr, StreamingCost}; });
  AddForFloats(table, "rms_norm_dx", []<typename T>() { return Kernel{Dx<T>, nullptr, StreamingCost}; });
  AddForFloats(table, "rms_norm_dw", []<typename T>() { return Kernel{Dw<T>, DwWorkspace<T>, StreamingCost}; });
}

}  // namespace strata
