// sum_parts: y = ((x_0 + x_1) + x_2) + ..., over the rows of x, in the accumulator of the dtype.
// sum_blocks: the same of each [n, c] of x[a, n, c], rounded to the dtype of x.

#include <algorithm>

#include "core/kernels/cpu_kernels.h"
#include "core/kernels/cpu_util.h"

namespace strata {
namespace {

// Columns [begin, end) of x's rows into sum[0, end - begin).
template <typename T, typename C>
void SumRows(const T* x, int64_t rows, int64_t columns, int64_t begin, int64_t end, C* sum) {
  for (int64_t i = begin; i < end; ++i) sum[i - begin] = static_cast<C>(x[i]);
  for (int64_t r = 1; r < rows; ++r) {
    for (int64_t i = begin; i < end; ++i) sum[i - begin] += static_cast<C>(x[r * columns + i]);
  }
}

template <typename T>
absl::Status RunSumParts(const KernelArgs& a) {
  using C = ComputeType<T>;
  const int64_t rows = a.in[0].shape[0], columns = a.in[0].shape[1];
  const T* const x = a.in[0].as<const T>();
  C* const y = a.out[0].as<C>();
  ForTiles(a.pool, columns, kFlatTile,
           [&](int64_t begin, int64_t end) { SumRows(x, rows, columns, begin, end, y + begin); });
  return absl::OkStatus();
}

template <typename T>
absl::Status RunSumBlocks(const KernelArgs& a) {
  using C = ComputeType<T>;
  const int64_t rows = a.in[0].shape[1], columns = a.in[0].shape[2];
  for (int64_t block = 0; block < a.in[0].shape[0]; ++block) {
    const T* const x = a.in[0].as<const T>() + block * rows * columns;
    T* const y = a.out[0].as<T>() + block * columns;
    ForTiles(a.pool, columns, kFlatTile, [&](int64_t begin, int64_t end) {
      constexpr int64_t kPiece = 256;
      C sum[kPiece];
      for (int64_t at = begin; at < end; at += kPiece) {
        const int64_t to = std::min(end, at + kPiece);
        SumRows(x, rows, columns, at, to, sum);
        for (int64_t i = at; i < to; ++i) y[i] = static_cast<T>(sum[i - at]);
      }
    });
  }
  return absl::OkStatus();
}

Cost SumCost(const Op&, std::span<const TensorRef> in, std::span<const TensorRef> out) {
  return {static_cast<double>(in[0].shape.elements()), static_cast<double>(in[0].bytes() + out[0].bytes())};
}

}  // namespace

void AddSumPartsKernels(KernelTable& table) {
  AddForFloats(table, "sum_parts", []<typename T>() { return Kernel{.run = RunSumParts<T>, .cost = SumCost}; });
  AddForFloats(table, "sum_blocks", []<typename T>() { return Kernel{.run = RunSumBlocks<T>, .cost = SumCost}; });
}

}  // namespace strata
