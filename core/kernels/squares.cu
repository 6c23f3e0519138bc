// square_parts: block b sums the squares of the b-th of kSquareParts slices. total_squares: tiles of all ranges as in sum_squares.cuh, then
// one block adds what these left, and the parts, in float64. Orders are fixed, and do not depend on the GPU.
#include "core/kernels/squares_cost.h"
#include "core/kernels/squares_cuda.h"
#include "core/kernels/sum_squares.cuh"

namespace strata {
namespace {

template <typename T>
__global__ void __launch_bounds__(kSquareThreads) SquareSlices(const T* x, int64_t count, int64_t slice, float* parts) {
  __shared__ double shared[32];
  const int64_t begin = min(count, blockIdx.x * slice), end = min(count, begin + slice);
  double sum = 0;
  for (int64_t at = begin; at < end; at += kSquareTile) sum += SquaresOf(x + at, min(kSquareTile, end - at));
  sum = BlockSum(sum, shared);
  if (threadIdx.x == 0) parts[blockIdx.x] = static_cast<float>(sum);
}

template <typename T>
absl::Status LaunchSlices(const void* x, int64_t count, float* parts, cudaStream_t stream) {
  const int64_t slice = Ceil(Ceil(count, kSquareParts), Vec<T>::kSize) * Vec<T>::kSize;
  SquareSlices<<<static_cast<unsigned>(kSquareParts), kSquareThreads, 0, stream>>>(static_cast<const T*>(x), count,
                                                                                   slice, parts);
  return Launched("square_parts");
}

// Adjacent tensors are one.
absl::Status RunSquareParts(const KernelArgs& a) {
  int64_t count = 0;
  const std::byte* const x = a.in[0].as<const std::byte>();
  for (const TensorRef& t : a.in) {
    if (t.as<const std::byte>() != x + count * SizeOf(t.dtype)) {
      return absl::InternalError("tensors of square_parts are not adjacent");
    }
    count += t.shape.elements();
  }
  return LaunchSquareParts(x, a.in[0].dtype, count, a.out[0].as<float>(), StreamOf(a));
}

// fn(i, range) of the flat tensors of this dtype, input 1 + i.
template <typename Fn>
void ForRanges(const Op& op, std::span<const TensorRef> in, DType dtype, const Fn& fn) {
  for (size_t i = 0; i + 1 < in.size(); ++i) {
    if (in[1 + i].dtype != dtype) continue;
    for (const FlatRange& r : TotalSquaresRanges(op, i)) fn(in[1 + i], r);
  }
}
int64_t Launches(const Op& op, std::span<const TensorRef> in, DType dtype) {
  int64_t ranges = 0;
  ForRanges(op, in, dtype, [&](const TensorRef&, const FlatRange&) { ++ranges; });
  return Ceil(ranges, SquareRanges::kMax);
}
int64_t TileSums(const Op& op, std::span<const TensorRef> in) {
  return (Launches(op, in, DType::kF32) + Launches(op, in, DType::kBF16)) * kSquareBlocks;
}

// kSquareBlocks sums a launch, to `sums`; returns what lies behind them.
template <typename T>
double* LaunchTiles(const KernelArgs& a, DType dtype, double* sums) {
  const T* base = nullptr;  // ranges of all tensors count from the first one's start
  SquareRanges ranges;
  const auto launch = [&] {
    if (ranges.count == 0) return;
    SquareTiles<kSquareThreads>
        <<<static_cast<unsigned>(kSquareBlocks), kSquareThreads, 0, StreamOf(a)>>>(base, ranges, sums);
    sums += kSquareBlocks;
    ranges.count = 0;
  };
  ForRanges(a.op, a.in, dtype, [&](const TensorRef& flat, const FlatRange& r) {
    const T* const x = flat.as<const T>();
    if (base == nullptr) base = x;
    ranges.Add(r, flat.origin[0], flat.shape.elements(), x - base);
    if (ranges.full()) launch();
  });
  launch();
  return sums;
}

struct TilesAndParts {
  const double* tiles;
  int64_t num_tiles;
  const float* parts;
  __device__ double operator()(int64_t i) const { return i < num_tiles ? tiles[i] : parts[i - num_tiles]; }
};

absl::Status RunTotalSquares(const KernelArgs& a) {
  double* const sums = reinterpret_cast<double*>(a.workspace.data());
  const double* const end = LaunchTiles<CudaBF16>(a, DType::kBF16, LaunchTiles<float>(a, DType::kF32, sums));
  const TilesAndParts all{sums, end - sums, a.in[0].as<const float>()};
  SumInOrder<<<1, kSumThreads, 0, StreamOf(a)>>>(all, all.num_tiles + a.in[0].shape[0], a.out[0].as<float>());
  return Launched("total_squares");
}

int64_t Workspace(const Op& op, std::span<const TensorRef> in) {
  return TileSums(op, in) * static_cast<int64_t>(sizeof(double));
}

}  // namespace

absl::Status LaunchSquareParts(const void* x, DType dtype, int64_t count, float* parts, cudaStream_t stream) {
  return dtype == DType::kBF16 ? LaunchSlices<CudaBF16>(x, count, parts, stream)
                               : LaunchSlices<float>(x, count, parts, stream);
}

void AddCudaSquaresKernels(KernelTable& table) {
  for (const DType t : {DType::kF32, DType::kBF16}) {
    table.Add("square_parts", t, {.run = RunSquareParts, .cost = StreamingCost});
  }
  table.Add("total_squares", DType::kF32, {.run = RunTotalSquares, .workspace = Workspace, .cost = TotalSquaresCost});
}

}  // namespace strata
