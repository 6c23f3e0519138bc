// sum_squares: tiles of kFlatTile elements of the flat tensor, kLanes running sums in each, then a binary tree over tiles.
// square_parts: all of it in part 0. total_squares: the parts in their order, then the sums of the flat tensors.

#include "core/ops/squares.h"

#include "core/kernels/cpu_kernels.h"
#include "core/kernels/cpu_util.h"
#include "core/kernels/squares_cost.h"

namespace strata {
namespace {

constexpr int64_t kLanes = 16;  // a known count, so that the compiler keeps them in vectors

int64_t NumTiles(int64_t elements) { return (elements + kFlatTile - 1) / kFlatTile; }

template <typename T, typename C = ComputeType<T>>
C SquaresOf(const T* x, int64_t n) {
  C lane[kLanes] = {};
  const auto add = [&](int64_t i, int64_t j) {
    const C v = static_cast<C>(x[i + j]);
    lane[j] += v * v;
  };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t j = 0; j < kLanes; ++j) add(i, j);
  }
  for (int64_t j = 0; i + j < n; ++j) add(i, j);
  for (int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (int64_t j = 0; j < half; ++j) lane[j] += lane[j + half];
  }
  return lane[0];
}

// Of the elements of x that lie in ranges of the flat tensor that it is a part of.
template <typename T, typename C = ComputeType<T>>
C SquaresOfRanges(const KernelArgs& a, const TensorRef& x, std::span<const FlatRange> ranges) {
  C* sums = reinterpret_cast<C*>(a.workspace.data());
  const T* const data = x.as<const T>();
  const int64_t n = x.shape.elements(), tiles = NumTiles(n), origin = x.origin[0];
  ForTiles(a.pool, n, kFlatTile, [&](int64_t begin, int64_t end) {
    C sum = 0;
    for (const FlatRange& r : ranges) {
      const int64_t offset = r.offset - origin, from = std::max(begin, offset), to = std::min(end, offset + r.count);
      if (from < to) sum += SquaresOf(data + from, to - from);
    }
    sums[begin / kFlatTile] = sum;
  });
  for (int64_t step = 1; step < tiles; step *= 2) {
    for (int64_t i = 0; i + step < tiles; i += 2 * step) sums[i] += sums[i + step];
  }
  return tiles > 0 ? sums[0] : C(0);
}

template <typename T>
absl::Status RunSumSquares(const KernelArgs& a) {
  *a.out[0].as<ComputeType<T>>() = SquaresOfRanges<T>(a, a.in[0], SumSquaresRanges(a.op));
  return absl::OkStatus();
}

template <typename T>
absl::Status RunSquareParts(const KernelArgs& a) {
  using C = ComputeType<T>;
  C sum = 0;
  for (const TensorRef& t : a.in) {
    const TensorRef x = Contiguous(t.data, t.dtype, {t.shape.elements()});
    const FlatRange all[] = {{0, x.shape[0]}};
    sum += SquaresOfRanges<T>(a, x, all);
  }
  C* const parts = a.out[0].as<C>();
  std::fill_n(parts, kSquareParts, C(0));
  parts[0] = sum;
  return absl::OkStatus();
}

template <typename C>
absl::Status RunTotalSquares(const KernelArgs& a) {
  const std::span<const C> parts(a.in[0].as<const C>(), static_cast<size_t>(a.in[0].shape[0]));
  double total = 0;
  for (C part : parts) total += static_cast<double>(part);
  for (size_t i = 0; i + 1 < a.in.size(); ++i) {
    const TensorRef& flat = a.in[1 + i];
    const std::span<const FlatRange> ranges = TotalSquaresRanges(a.op, i);
    total += static_cast<double>(flat.dtype == DType::kBF16 ? SquaresOfRanges<BF16, float>(a, flat, ranges)
                                                            : SquaresOfRanges<C, C>(a, flat, ranges));
  }
  *a.out[0].as<C>() = static_cast<C>(total);
  return absl::OkStatus();
}

int64_t Workspace(const Op&, std::span<const TensorRef> in) {
  int64_t tiles = 0;
  for (const TensorRef& t : in) tiles = std::max(tiles, NumTiles(t.shape.elements()));
  return tiles * SizeOf(AccumulatorOf(in[0].dtype));
}

}  // namespace

void AddSquaresKernels(KernelTable& table) {
  AddForFloats(table, "sum_squares", []<typename T>() {
    return Kernel{.run = RunSumSquares<T>, .workspace = Workspace, .cost = StreamingCost};
  });
  AddForFloats(table, "square_parts", []<typename T>() {
    return Kernel{.run = RunSquareParts<T>, .workspace = Workspace, .cost = StreamingCost};
  });
  table.Add("total_squares", DType::kF64,
            {.run = RunTotalSquares<double>, .workspace = Workspace, .cost = TotalSquaresCost});
  table.Add("total_squares", DType::kF32,
            {.run = RunTotalSquares<float>, .workspace = Workspace, .cost = TotalSquaresCost});
}

}  // namespace strata
