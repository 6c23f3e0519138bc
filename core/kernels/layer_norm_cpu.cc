// Layer norm on the CPU (core/ops/layer_norm.h has the maths). Tiles are fixed blocks of tokens; the variance is taken
// about the mean in a second pass over the row.
#include <cmath>

#include "core/kernels/cpu_kernels.h"
#include "core/kernels/cpu_util.h"
#include "core/kernels/sum_cpu.h"
#include "core/kernels/sum_rows_cpu.h"
#include "core/ops/layer_norm.h"

namespace strata {
namespace {

template <typename T>
absl::Status Forward(const KernelArgs& a) {
  using C = ComputeType<T>;
  const int64_t E = a.in[0].shape[2];
  const C eps = static_cast<C>(LayerNormEps(a.op));
  const T *w = a.in[1].as<const T>(), *b = a.in[2].as<const T>();
  ForTokens(a.pool, Tokens(a.in[0]), [&](int64_t t) {
    const T* x = a.in[0].as<const T>() + t * E;
    T* y = a.out[0].as<T>() + t * E;
    const C mean = SumOf<C>(E, [&](int64_t e) { return static_cast<C>(x[e]); }) / static_cast<C>(E);
    const auto centered = [&](int64_t e) { return static_cast<C>(x[e]) - mean; };
    const C squares = SumOf<C>(E, [&](int64_t e) { return centered(e) * centered(e); });
    const C rstd = 1 / std::sqrt(squares / static_cast<C>(E) + eps);
    for (int64_t e = 0; e < E; ++e) {
      y[e] = static_cast<T>(centered(e) * rstd * static_cast<C>(w[e]) + static_cast<C>(b[e]));
    }
    a.out[1].as<C>()[t] = mean;
    a.out[2].as<C>()[t] = rstd;
  });
  return absl::OkStatus();
}

template <typename T>
absl::Status Dx(const KernelArgs& a) {
  using C = ComputeType<T>;
  const int64_t E = a.in[1].shape[2];
  const T* w = a.in[2].as<const T>();
  ForTokens(a.pool, Tokens(a.in[1]), [&](int64_t token) {
    const T* dy = a.in[0].as<const T>() + token * E;
    const T* x = a.in[1].as<const T>() + token * E;
    T* dx = a.out[0].as<T>() + token * E;
    const C mean = a.in[3].as<const C>()[token], rstd = a.in[4].as<const C>()[token], over_E = 1 / static_cast<C>(E);
    const auto t = [&](int64_t e) { return static_cast<C>(dy[e]) * static_cast<C>(w[e]); };
    const auto xhat = [&](int64_t e) { return (static_cast<C>(x[e]) - mean) * rstd; };
    const C mean_t = SumOf<C>(E, t) * over_E;
    const C mean_tx = SumOf<C>(E, [&](int64_t e) { return t(e) * xhat(e); }) * over_E;
    for (int64_t e = 0; e < E; ++e) dx[e] = static_cast<T>(rstd * (t(e) - mean_t - xhat(e) * mean_tx));
  });
  return absl::OkStatus();
}

template <typename T>
int64_t DwWorkspace(const Op&, std::span<const TensorRef> in) {
  return SumRowsWorkspace(Tokens(in[0]), in[0].shape[2], 2) * static_cast<int64_t>(sizeof(ComputeType<T>));
}

template <typename T>
absl::Status Dw(const KernelArgs& a) {
  using C = ComputeType<T>;
  const int64_t E = a.in[1].shape[2];
  C* const out[] = {a.out[0].as<C>(), a.out[1].as<C>()};
  SumRows<C>(a.pool, Tokens(a.in[1]), E, a.workspace, out, [&](int64_t t, C* sum) {
    const T* dy = a.in[0].as<const T>() + t * E;
    const T* x = a.in[1].as<const T>() + t * E;
    const C mean = a.in[2].as<const C>()[t], rstd = a.in[3].as<const C>()[t];
    for (int64_t e = 0; e < E; ++e) sum[e] += static_cast<C>(dy[e]) * ((static_cast<C>(x[e]) - mean) * rstd);
    for (int64_t e = 0; e < E; ++e) sum[E + e] += static_cast<C>(dy[e]);
  });
  return absl::OkStatus();
}

}  // namespace

void AddLayerNormKernels(KernelTable& table) {
  AddForFloats(table, "layer_norm", []<typename T>() { return Kernel{Forward<T>, nullptr, StreamingCost}; });
  AddForFloats(table, "layer_norm_dx", []<typename T>() { return Kernel{Dx<T>, nullptr, StreamingCost}; });
  AddForFloats(table, "layer_norm_dw", []<typename T>() { return Kernel{Dw<T>, DwWorkspace<T>, StreamingCost}; });
}

}  // namespace strata
