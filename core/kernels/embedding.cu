// y[t] = W[token[t]];  dW[v] = sum of dy[t] over token[t] = v. The tokens are sorted by row, stably (sort_tokens.cuh), and each
// run of equal rows is summed by one warp, or by a block where it is long, in a fixed order: the bits are always the same. Squares of
// the gradient are those of the rows that there are tokens of.
#include "core/kernels/cost.h"
#include "core/kernels/cuda_util.cuh"
#include "core/kernels/sort_tokens.cuh"
#include "core/kernels/squares_cuda.h"
#include "core/ops/fused.h"
#include "core/ops/squares.h"

namespace strata {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32, kLong = 64;

// Rows of `units` units; zeros for a token outside of the table.
template <typename Unit>
__global__ void __launch_bounds__(kThreads) LookUp(const int32_t* tokens, int64_t count, const Unit* table,
                                                   int64_t first, int64_t rows, int64_t units, Unit* y) {
  const int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x;
  if (i >= count * units) return;
  const int64_t t = i / units, row = tokens[t] - first;
  y[i] = row >= 0 && row < rows ? table[row * units + i - t * units] : Unit{};
}

template <typename T>
absl::Status RunEmbedding(const KernelArgs& a) {
  const TensorRef &tokens = a.in[0], &table = a.in[1];
  const int64_t count = tokens.shape.elements(), rows = table.shape[0], row_bytes = table.shape[1] * sizeof(T);
  const auto launch = [&]<typename Unit>(Unit*) {
    const int64_t units = row_bytes / static_cast<int64_t>(sizeof(Unit)), blocks = Ceil(count * units, kThreads);
    if (blocks == 0) return;
    LookUp<<<static_cast<unsigned>(blocks), kThreads, 0, StreamOf(a)>>>(
        tokens.as<const int32_t>(), count, table.as<const Unit>(), table.origin[0], rows, units, a.out[0].as<Unit>());
  };
  if (row_bytes % 16 == 0 && Aligned16({table.data, a.out[0].data})) {
    launch(static_cast<uint4*>(nullptr));
  } else if constexpr (std::is_same_v<T, float>) {
    launch(static_cast<uint32_t*>(nullptr));
  } else {
    launch(static_cast<uint16_t*>(nullptr));
  }
  return Launched("embedding");
}

template <typename T, typename Out>
struct Gradient {
  const uint64_t* items;  // sorted
  int64_t count, rows, columns;
  const T* dy;
  Out* dw;
  bool adds;

  __device__ int64_t RowAt(int64_t i) const { return RowOfItem(items[i]); }

  // sum over items [begin, end) of dy[token, column ...].
  template <int kWidth>
  __device__ __forceinline__ void Sum(int64_t begin, int64_t end, int64_t column, float (&sum)[kWidth]) const {
#pragma unroll 4
    for (int64_t i = begin; i < end; ++i) {
      float x[kWidth];
      LoadFloats(dy + TokenOfItem(items[i]) * columns + column, x);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) sum[j] += x[j];
    }
  }

  template <int kWidth>
  __device__ __forceinline__ void Put(int64_t row, int64_t column, float (&sum)[kWidth]) const {
    Out* const at = dw + row * columns + column;
    if (adds) {
      float old[kWidth];
      LoadFloats(at, old);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) sum[j] += old[j];
    }
    StoreFloats(at, sum);
  }
};

// Warp w of block b looks at item 8 b + w: where a run of at most kLong items begins, it sums it.
template <int kWidth, typename T, typename Out>
__global__ void __launch_bounds__(kThreads) SumShortRuns(Gradient<T, Out> g) {
  const int64_t begin = blockIdx.x * int64_t{kWarps} + threadIdx.x / 32;
  const int64_t column = (blockIdx.y * int64_t{32} + threadIdx.x % 32) * kWidth;
  if (begin >= g.count || column >= g.columns) return;
  const int64_t row = g.RowAt(begin);
  if (row >= g.rows || (begin > 0 && g.RowAt(begin - 1) == row)) return;
  if (begin + kLong < g.count && g.RowAt(begin + kLong) == row) return;
  int64_t end = begin + 1;
  while (end < g.count && g.RowAt(end) == row) ++end;
  float sum[kWidth] = {};
  g.Sum(begin, end, column, sum);
  g.Put(row, column, sum);
}

// Block b looks at item kLong b: where it is the first such one of a run of more than kLong items, the warps sum a part of
// the run each.
template <int kWidth, typename T, typename Out>
__global__ void __launch_bounds__(kThreads) SumLongRuns(Gradient<T, Out> g) {
  __shared__ float sums[kWarps][32 * kWidth];
  const int64_t at = blockIdx.x * int64_t{kLong}, row = g.RowAt(at);
  if (row >= g.rows || (at >= kLong && g.RowAt(at - kLong) == row)) return;
  const auto same = [&](int64_t i) { return i >= 0 && i < g.count && g.RowAt(i) == row; };
  if (!same(at - kLong / 2) && !same(at + kLong / 2)) return;  // at most kLong items
  int64_t begin = at;
  while (same(begin - 1)) --begin;  // fewer than kLong steps
  int64_t end = at + 1;             // the first item after the run lies in [end, past)
  for (int64_t past = g.count + 1; end + 1 < past;) {
    const int64_t middle = (end + past) / 2;
    (same(middle - 1) ? end : past) = middle;
  }
  if (end - begin <= kLong) return;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t column = (blockIdx.y * int64_t{32} + lane) * kWidth, part = (end - begin + kWarps - 1) / kWarps;
  const int64_t from = begin + warp * part;
  float sum[kWidth] = {};
  if (column < g.columns) g.Sum(from, min(from + part, end), column, sum);
#pragma unroll
  for (int j = 0; j < kWidth; ++j) sums[warp][j * 32 + lane] = sum[j];
  __syncthreads();
  if (warp > 0 || column >= g.columns) return;
#pragma unroll
  for (int w = 1; w < kWarps; ++w) {
#pragma unroll
    for (int j = 0; j < kWidth; ++j) sum[j] += sums[w][j * 32 + lane];
  }
  g.Put(row, column, sum);
}

// The squares of rows of tokens, once each, a warp a row; block b makes part b.
template <typename T, typename Out>
__global__ void __launch_bounds__(kThreads) SquareRows(Gradient<T, Out> g, float* parts) {
  __shared__ double shared[32];
  float sum = 0;
  for (int64_t i = blockIdx.x * int64_t{kWarps} + threadIdx.x / 32; i < g.count; i += gridDim.x * int64_t{kWarps}) {
    const int64_t row = g.RowAt(i);
    if (row >= g.rows || (i > 0 && g.RowAt(i - 1) == row)) continue;
    const Out* const x = g.dw + row * g.columns;
#pragma unroll 8
    for (int64_t c = threadIdx.x % 32; c < g.columns; c += 32) {
      const float v = ToFloat(x[c]);
      sum += v * v;
    }
  }
  const double total = BlockSum(static_cast<double>(sum), shared);
  if (threadIdx.x == 0) parts[blockIdx.x] = static_cast<float>(total);
}

// With `squares`, [kSquareParts], or null.
template <typename T, typename Out>
absl::Status LaunchGradient(const KernelArgs& a, const TensorRef& tokens, const TensorRef& dy, bool adds,
                            float* squares = nullptr) {
  const TensorRef& dw = a.out[0];
  const cudaStream_t stream = StreamOf(a);
  const int64_t count = tokens.shape.elements(), rows = dw.shape[0], columns = dw.shape[1];
  if (!adds) {
    const cudaError_t error = cudaMemsetAsync(dw.data, 0, static_cast<size_t>(dw.bytes()), stream);
    if (error != cudaSuccess) return CudaStatus(error, "embedding_dw");
  }
  const auto square_all = [&] { return LaunchSquareParts(dw.data, dw.dtype, dw.shape.elements(), squares, stream); };
  if (count == 0 || dw.shape.elements() == 0) return squares != nullptr ? square_all() : Launched("embedding_dw");
  const uint64_t* const items =
      LaunchSortTokens(stream, tokens.as<const int32_t>(), count, dw.origin[0], rows, a.workspace.data());
  const Gradient<T, Out> g{items, count, rows, columns, dy.as<const T>(), dw.as<Out>(), adds};
  const auto launch = [&]<int kWidth>(std::integral_constant<int, kWidth>) {
    const auto across = static_cast<unsigned>(Ceil(columns, 32 * kWidth));
    SumShortRuns<kWidth><<<dim3(static_cast<unsigned>(Ceil(count, kWarps)), across), kThreads, 0, stream>>>(g);
    SumLongRuns<kWidth><<<dim3(static_cast<unsigned>(Ceil(count, kLong)), across), kThreads, 0, stream>>>(g);
  };
  if (columns % 8 == 0 && Aligned16({dy.data, dw.data})) {
    launch(std::integral_constant<int, 8>{});
  } else {
    launch(std::integral_constant<int, 1>{});
  }
  if (squares != nullptr && adds) return square_all();  // all rows may have been there
  if (squares != nullptr) SquareRows<<<static_cast<unsigned>(kSquareParts), kThreads, 0, stream>>>(g, squares);
  return Launched("embedding_dw");
}

template <typename T>
absl::Status RunDw(const KernelArgs& a) {  // tokens, dy, table
  return a.out[0].dtype == DType::kBF16 ? LaunchGradient<T, CudaBF16>(a, a.in[0], a.in[1], false)
                                        : LaunchGradient<T, float>(a, a.in[0], a.in[1], false);
}
template <typename Acc>
absl::Status RunDwAcc(const KernelArgs& a) {  // acc, tokens, dy f32 or bf16
  const bool adds = FusedAttributesOf(a.op).always_add || !a.overwrite;
  return a.in[2].dtype == DType::kBF16 ? LaunchGradient<CudaBF16, Acc>(a, a.in[1], a.in[2], adds)
                                       : LaunchGradient<float, Acc>(a, a.in[1], a.in[2], adds);
}

template <typename Acc>
absl::Status RunDwAccSquares(const KernelArgs& a) {  // acc, squares, tokens, dy f32 or bf16
  const bool adds = FusedAttributesOf(a.op).always_add || !a.overwrite;
  float* const squares = a.out[1].as<float>();
  return a.in[3].dtype == DType::kBF16 ? LaunchGradient<CudaBF16, Acc>(a, a.in[2], a.in[3], adds, squares)
                                       : LaunchGradient<float, Acc>(a, a.in[2], a.in[3], adds, squares);
}

template <int kTokens>
int64_t Workspace(const Op&, std::span<const TensorRef> in) {
  return SortTokensWorkspace(in[kTokens].shape.elements());
}

}  // namespace

void AddCudaEmbeddingKernels(KernelTable& table) {
  table.Add("embedding", DType::kF32, {.run = RunEmbedding<float>, .cost = StreamingCost});
  table.Add("embedding", DType::kBF16, {.run = RunEmbedding<CudaBF16>, .cost = StreamingCost});
  table.Add("embedding_dw", DType::kF32, {.run = RunDw<float>, .workspace = Workspace<0>, .cost = StreamingCost});
  table.Add("embedding_dw", DType::kBF16, {.run = RunDw<CudaBF16>, .workspace = Workspace<0>, .cost = StreamingCost});
  table.Add("embedding_dw_acc", DType::kF32,
            {.run = RunDwAcc<float>, .workspace = Workspace<1>, .cost = StreamingCost});
  table.Add("embedding_dw_acc", DType::kBF16,
            {.run = RunDwAcc<CudaBF16>, .workspace = Workspace<1>, .cost = StreamingCost});
  table.Add("embedding_dw_acc_squares", DType::kF32,
            {.run = RunDwAccSquares<float>, .workspace = Workspace<2>, .cost = StreamingCost});
  table.Add("embedding_dw_acc_squares", DType::kBF16,
            {.run = RunDwAccSquares<CudaBF16>, .workspace = Workspace<2>, .cost = StreamingCost});
}

}  // namespace strata
