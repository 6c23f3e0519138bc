// y = ((x_0 + x_1) + x_2) + ..., over the rows of x, in the accumulator of the dtype.

#include "core/kernels/cpu_kernels.h"
#include "core/kernels/cpu_util.h"

namespace strata {
namespace {

template <typename T>
absl::Status RunSumParts(const KernelArgs& a) {
  using C = ComputeType<T>;
  const int64_t rows = a.in[0].shape[0], columns = a.in[0].shape[1];
  const T* const x = a.in[0].as<const T>();
  C* const y = a.out[0].as<C>();
  ForTiles(a.pool, columns, kFlatTile, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) y[i] = static_cast<C>(x[i]);
    for (int64_t r = 1; r < rows; ++r) {
      for (int64_t i = begin; i < end; ++i) y[i] += static_cast<C>(x[r * columns + i]);
    }
  });
  return absl::OkStatus();
}

Cost SumPartsCost(const Op&, std::span<const TensorRef> in, std::span<const TensorRef> out) {
  return {static_cast<double>(in[0].shape.elements()), static_cast<double>(in[0].bytes() + out[0].bytes())};
}

}  // namespace

void AddSumPartsKernels(KernelTable& table) {
  AddForFloats(table, "sum_parts", []<typename T>() { return Kernel{.run = RunSumParts<T>, .cost = SumPartsCost}; });
}

}  // namespace strata
