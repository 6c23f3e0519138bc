// slice, pad_slice, concat, heads_packed, heads_unpacked, swap_blocks and slice_shard copy boxes of bytes, of any dtype: with a tensor seen as
// [outer, n, inner] about a dim, rows of n inner values. cast; reduce_sum: y[o, i] = sum over j of x[o, j, i], in float64;
// broadcast: y[o, j, i] = x[o, i].
#include "core/ops/move.h"

#include "core/kernels/copy_box.cuh"
#include "core/kernels/cost.h"
#include "core/kernels/map.cuh"
#include "core/kernels/sum_in_order.cuh"

namespace strata {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kSumBlocks = 4 * 132;

struct OuterInner {
  int64_t outer = 1, n = 1, inner = 1;
};
OuterInner SplitAt(const Shape& shape, int dim) {
  OuterInner s;
  for (int i = 0; i < shape.rank; ++i) (i < dim ? s.outer : i == dim ? s.n : s.inner) *= shape[i];
  return s;
}
int64_t RowBytes(const TensorRef& t, int dim) {
  const OuterInner s = SplitAt(t.shape, dim);
  return s.n * s.inner * SizeOf(t.dtype);
}

absl::Status RunSlice(const KernelArgs& a) {
  const Piece p = PieceOf(a.op);
  const int64_t row = RowBytes(a.out[0], p.dim), outer = SplitAt(a.out[0].shape, p.dim).outer;
  CopyBox(StreamOf(a), a.in[0].as<const std::byte>() + p.part * row, a.out[0].as<std::byte>(),
          {.counts = {1, outer}, .bytes = row, .from = {0, row * p.parts}, .to = {0, row}});
  return Launched("slice");
}

absl::Status RunPadSlice(const KernelArgs& a) {
  const Piece p = PieceOf(a.op);
  const int64_t row = RowBytes(a.in[0], p.dim), outer = SplitAt(a.in[0].shape, p.dim).outer;
  const cudaError_t error = cudaMemsetAsync(a.out[0].data, 0, static_cast<size_t>(a.out[0].bytes()), StreamOf(a));
  if (error != cudaSuccess) return CudaStatus(error, "pad_slice");
  CopyBox(StreamOf(a), a.in[0].as<const std::byte>(), a.out[0].as<std::byte>() + p.part * row,
          {.counts = {1, outer}, .bytes = row, .from = {0, row}, .to = {0, row * p.parts}});
  return Launched("pad_slice");
}

constexpr int kHeadsDim = 2;

// in[0] | in[1] | ... along `dim`, of any widths.
absl::Status JoinParts(const KernelArgs& a, int dim, const char* kernel) {
  const int64_t row = RowBytes(a.out[0], dim), outer = SplitAt(a.out[0].shape, dim).outer;
  int64_t at = 0;
  for (const TensorRef& part : a.in) {
    const int64_t bytes = RowBytes(part, dim);
    CopyBox(StreamOf(a), part.as<const std::byte>(), a.out[0].as<std::byte>() + at,
            {.counts = {1, outer}, .bytes = bytes, .from = {0, bytes}, .to = {0, row}});
    at += bytes;
  }
  return Launched(kernel);
}
absl::Status RunConcat(const KernelArgs& a) { return JoinParts(a, DimOf(a.op), "concat"); }
absl::Status RunHeadsPacked(const KernelArgs& a) { return JoinParts(a, kHeadsDim, "heads_packed"); }

absl::Status RunHeadsUnpacked(const KernelArgs& a) {
  const int64_t row = RowBytes(a.in[0], kHeadsDim), outer = SplitAt(a.in[0].shape, kHeadsDim).outer;
  int64_t at = 0;
  for (const TensorRef& part : a.out) {
    const int64_t bytes = RowBytes(part, kHeadsDim);
    CopyBox(StreamOf(a), a.in[0].as<const std::byte>() + at, part.as<std::byte>(),
            {.counts = {1, outer}, .bytes = bytes, .from = {0, row}, .to = {0, bytes}});
    at += bytes;
  }
  return Launched("heads_unpacked");
}

absl::Status RunSwapBlocks(const KernelArgs& k) {  // [a, b, row] -> [b, a, row]
  const Shape& shape = k.in[0].shape;
  const int64_t a = shape[0], b = shape[1], row = shape[2] * SizeOf(k.in[0].dtype);
  CopyBox(StreamOf(k), k.in[0].as<const std::byte>(), k.out[0].as<std::byte>(),
          {.counts = {a, b}, .bytes = row, .from = {b * row, row}, .to = {row, a * row}});
  return Launched("swap_blocks");
}

absl::Status RunSliceShard(const KernelArgs& a) {  // along the one dim in which the shapes differ
  const TensorRef &in = a.in[0], &out = a.out[0];
  int d = 0;
  while (d + 1 < in.shape.rank && in.shape[d] == out.shape[d]) ++d;
  const OuterInner s = SplitAt(in.shape, d);
  const int64_t inner = s.inner * SizeOf(in.dtype), from = in.shape[d] * inner, to = out.shape[d] * inner;
  CopyBox(StreamOf(a), in.as<const std::byte>() + (out.origin[d] - in.origin[d]) * inner, out.as<std::byte>(),
          {.counts = {1, s.outer}, .bytes = to, .from = {0, from}, .to = {0, to}});
  return Launched("slice_shard");
}

struct SameFn {
  __device__ void operator()(const float* x, float* y) const { y[0] = x[0]; }
};
template <typename T>
absl::Status RunCast(const KernelArgs& a) {
  if (a.out[0].dtype == DType::kF32) return MapFlat<float, 1, T>(a, SameFn{});
  if (a.out[0].dtype == DType::kBF16) return MapFlat<CudaBF16, 1, T>(a, SameFn{});
  return absl::UnimplementedError("GPU kernels have no float64");
}

// A thread a sum: neighbours read neighbours.
template <typename T>
__global__ void __launch_bounds__(kThreads) SumColumns(const T* x, T* y, int64_t outer, int64_t n, int64_t inner) {
  const int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x;
  if (i >= outer * inner) return;
  const int64_t o = Quotient(i, inner);
  x += o * n * inner + (i - o * inner);
  double sum = 0;
#pragma unroll 4
  for (int64_t j = 0; j < n; ++j) sum += ToFloat(x[j * inner]);
  y[i] = FromFloat<T>(static_cast<float>(sum));
}

// A block a sum.
template <typename T>
__global__ void __launch_bounds__(kThreads) SumRow(const T* x, T* y, int64_t n, int64_t inner) {
  __shared__ double shared[32];
  const int64_t o = blockIdx.x / inner;
  x += o * n * inner + (blockIdx.x - o * inner);
  double sum = 0;
  for (int64_t j = threadIdx.x; j < n; j += kThreads) sum += ToFloat(x[j * inner]);
  sum = BlockSum(sum, shared);
  if (threadIdx.x == 0) y[blockIdx.x] = FromFloat<T>(static_cast<float>(sum));
}

// A block a part of the whole tensor.
template <typename T>
__global__ void __launch_bounds__(kThreads) SumPart(const T* x, int64_t n, double* sums) {
  __shared__ double shared[32];
  double sum = 0;
  for (int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x; i < n; i += gridDim.x * int64_t{kThreads}) {
    sum += ToFloat(x[i]);
  }
  sum = BlockSum(sum, shared);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

template <typename T>
absl::Status RunReduceSum(const KernelArgs& a) {
  const T* x = a.in[0].as<const T>();
  T* y = a.out[0].as<T>();
  const cudaStream_t stream = StreamOf(a);
  if (DimOf(a.op) < 0) {
    double* const sums = reinterpret_cast<double*>(a.workspace.data());
    SumPart<<<static_cast<unsigned>(kSumBlocks), kThreads, 0, stream>>>(x, a.in[0].shape.elements(), sums);
    SumInOrder<<<1, kSumThreads, 0, stream>>>(Stored{sums}, kSumBlocks, y);
    return Launched("reduce_sum");
  }
  const OuterInner s = SplitAt(a.in[0].shape, DimOf(a.op));
  const int64_t sums = s.outer * s.inner;
  if (sums == 0) return absl::OkStatus();
  if (s.inner >= 32 || s.n < 32) {
    SumColumns<<<static_cast<unsigned>(Ceil(sums, kThreads)), kThreads, 0, stream>>>(x, y, s.outer, s.n, s.inner);
  } else {
    SumRow<<<static_cast<unsigned>(sums), kThreads, 0, stream>>>(x, y, s.n, s.inner);
  }
  return Launched("reduce_sum");
}
int64_t SumWorkspace(const Op& op, std::span<const TensorRef>) {
  return DimOf(op) < 0 ? kSumBlocks * static_cast<int64_t>(sizeof(double)) : 0;
}

template <typename T>
__global__ void __launch_bounds__(kThreads) Repeat(const T* x, T* y, int64_t count, int64_t n, int64_t inner) {
  const int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x;
  if (i >= count) return;
  const int64_t o = Quotient(i, n * inner), row = Quotient(i, inner);
  y[i] = x[o * inner + (i - row * inner)];
}
template <typename T>
absl::Status RunBroadcast(const KernelArgs& a) {
  const Shape& shape = a.out[0].shape;
  const int64_t count = shape.elements();
  const OuterInner s = DimOf(a.op) < 0 ? OuterInner{1, count, 1} : SplitAt(shape, DimOf(a.op));
  if (count == 0) return absl::OkStatus();
  Repeat<<<static_cast<unsigned>(Ceil(count, kThreads)), kThreads, 0, StreamOf(a)>>>(
      a.in[0].as<const T>(), a.out[0].as<T>(), count, s.n, s.inner);
  return Launched("broadcast");
}

template <typename T>
void AddFor(KernelTable& table, DType dtype) {
  table.Add("cast", dtype, {.run = RunCast<T>, .cost = StreamingCost});
  table.Add("reduce_sum", dtype, {.run = RunReduceSum<T>, .workspace = SumWorkspace, .cost = StreamingCost});
  table.Add("broadcast", dtype, {.run = RunBroadcast<T>, .cost = StreamingCost});
}

}  // namespace

void AddCudaMoveKernels(KernelTable& table) {
  for (const DType t : {DType::kF64, DType::kF32, DType::kBF16, DType::kI64, DType::kI32, DType::kU8}) {
    table.Add("slice", t, {.run = RunSlice, .cost = StreamingCost});
    table.Add("pad_slice", t, {.run = RunPadSlice, .cost = StreamingCost});
    table.Add("concat", t, {.run = RunConcat, .cost = StreamingCost});
    table.Add("swap_blocks", t, {.run = RunSwapBlocks, .cost = StreamingCost});
    table.Add("slice_shard", t, {.run = RunSliceShard, .cost = StreamingCost});
  }
  // Of bf16 alone: cuDNN's attention takes packed heads in no other dtype.
  table.Add("heads_packed", DType::kBF16, {.run = RunHeadsPacked, .cost = StreamingCost});
  table.Add("heads_unpacked", DType::kBF16, {.run = RunHeadsUnpacked, .cost = StreamingCost});
  AddFor<float>(table, DType::kF32);
  AddFor<CudaBF16>(table, DType::kBF16);
}

}  // namespace strata
