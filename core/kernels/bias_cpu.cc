// y[r, n] = x[r, n] + b[n];  db[n] = sum over r of dy[r, n].
#include "core/kernels/cpu_kernels.h"
#include "core/kernels/cpu_util.h"
#include "core/kernels/sum_rows_cpu.h"

namespace strata {
namespace {

template <typename T>
absl::Status RunBiasAdd(const KernelArgs& a) {
  using C = ComputeType<T>;
  const OuterInner s = SplitAt(a.in[0].shape, a.in[0].shape.rank - 1);
  const T* b = a.in[1].as<const T>();
  ForTiles(a.pool, s.outer, std::max<int64_t>(1, kFlatTile / s.n), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const T* x = a.in[0].as<const T>() + r * s.n;
      T* y = a.out[0].as<T>() + r * s.n;
      for (int64_t n = 0; n < s.n; ++n) y[n] = static_cast<T>(static_cast<C>(x[n]) + static_cast<C>(b[n]));
    }
  });
  return absl::OkStatus();
}

template <typename T>
int64_t GradWorkspace(const Op&, std::span<const TensorRef> in) {
  const OuterInner s = SplitAt(in[0].shape, in[0].shape.rank - 1);
  return SumRowsWorkspace(s.outer, s.n, 1) * static_cast<int64_t>(sizeof(ComputeType<T>));
}

template <typename T>
absl::Status RunBiasGrad(const KernelArgs& a) {
  using C = ComputeType<T>;
  const OuterInner s = SplitAt(a.in[0].shape, a.in[0].shape.rank - 1);
  C* const out[] = {a.out[0].as<C>()};
  SumRows<C>(a.pool, s.outer, s.n, a.workspace, out, [&](int64_t r, C* sum) {
    const T* dy = a.in[0].as<const T>() + r * s.n;
    for (int64_t n = 0; n < s.n; ++n) sum[n] += static_cast<C>(dy[n]);
  });
  return absl::OkStatus();
}

}  // namespace

void AddBiasKernels(KernelTable& table) {
  AddForFloats(table, "bias_add", []<typename T>() { return Kernel{RunBiasAdd<T>, nullptr, StreamingCost}; });
  AddForFloats(table, "bias_grad", []<typename T>() {
    return Kernel{RunBiasGrad<T>, GradWorkspace<T>, StreamingCost};
  });
}

}  // namespace strata
