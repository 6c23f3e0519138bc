// sum_parts: y = ((x_0 + x_1) + x_2) + ..., over the rows of x, in the accumulator of the dtype.
// sum_blocks: the same of each [n, c] of x[a, n, c], rounded to the dtype of x; a member's own row is in what it sent.

#include <algorithm>

#include "core/kernels/cpu_kernels.h"
#include "core/kernels/cpu_util.h"
#include "core/plan/sum_blocks.h"

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

template <typename T>
absl::Status RunSumBlocks(const KernelArgs& a) {
  using C = ComputeType<T>;
  const Shape& s = a.in[0].shape;
  const int64_t rows = s[1], columns = s[2], me = static_cast<const SumBlocksOp&>(a.op).me();
  const T *const x = a.in[0].as<const T>(), *const sent = a.in[SumBlocksOp::kSent].as<const T>();
  for (int64_t block = 0; block < s[0]; ++block) {
    T* const y = a.out[0].as<T>() + block * columns;
    ForTiles(a.pool, columns, kFlatTile, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const auto part = [&](int64_t r) {
          return static_cast<C>((r == me ? sent : x)[(block * rows + r) * columns + i]);
        };
        C sum = part(0);
        for (int64_t r = 1; r < rows; ++r) sum += part(r);
        y[i] = static_cast<T>(sum);
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
