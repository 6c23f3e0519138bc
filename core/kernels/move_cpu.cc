// With a tensor seen as [outer, n, inner] about a dim: slice, pad_slice and concat copy rows of bytes;
// reduce_sum: y[o, i] = sum over j of x[o, j, i];  broadcast: y[o, j, i] = x[o, i].

#include "core/ops/move.h"

#include <cstring>

#include "core/kernels/cpu_kernels.h"
#include "core/kernels/cpu_util.h"

namespace strata {
namespace {

constexpr DType kAllDTypes[] = {DType::kF64, DType::kF32, DType::kBF16, DType::kI64, DType::kI32, DType::kU8};
constexpr int64_t kColumnTile = 256, kSumTile = 4096;

// Bytes of a row that spans `dim` and what is inside it.
int64_t RowBytes(const TensorRef& t, int dim) {
  const OuterInner s = SplitAt(t.shape, dim);
  return s.n * s.inner * SizeOf(t.dtype);
}

// fn(row) for each of `rows` rows of so many bytes, several small ones a tile.
template <typename Fn>
void ForRows(ThreadPool* pool, int64_t rows, int64_t bytes, const Fn& fn) {
  ForTiles(pool, rows, std::max<int64_t>(1, 65536 / bytes), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) fn(r);
  });
}

absl::Status RunSlice(const KernelArgs& a) {
  const Piece p = PieceOf(a.op);
  const int64_t row = RowBytes(a.out[0], p.dim);
  const std::byte* in = a.in[0].as<const std::byte>() + p.part * row;
  ForRows(a.pool, SplitAt(a.out[0].shape, p.dim).outer, row,
          [&](int64_t o) { std::memcpy(a.out[0].as<std::byte>() + o * row, in + o * row * p.parts, row); });
  return absl::OkStatus();
}

absl::Status RunPadSlice(const KernelArgs& a) {
  const Piece p = PieceOf(a.op);
  const int64_t row = RowBytes(a.in[0], p.dim), whole = row * p.parts;
  ForRows(a.pool, SplitAt(a.in[0].shape, p.dim).outer, whole, [&](int64_t o) {
    std::byte* out = a.out[0].as<std::byte>() + o * whole;
    std::memset(out, 0, whole);
    std::memcpy(out + p.part * row, a.in[0].as<const std::byte>() + o * row, row);
  });
  return absl::OkStatus();
}

absl::Status RunConcat(const KernelArgs& a) {
  const int dim = DimOf(a.op);
  const int64_t row = RowBytes(a.in[0], dim), parts = static_cast<int64_t>(a.in.size());
  ForRows(a.pool, SplitAt(a.in[0].shape, dim).outer, row * parts, [&](int64_t o) {
    for (int64_t p = 0; p < parts; ++p) {
      std::memcpy(a.out[0].as<std::byte>() + (o * parts + p) * row, a.in[p].as<const std::byte>() + o * row, row);
    }
  });
  return absl::OkStatus();
}

template <typename From, typename To>
void CastTo(const KernelArgs& a) {
  // f64 -> bf16 rounds twice, by way of f32: the rounding of BF16 is defined on float.
  using C = std::conditional_t<std::is_same_v<To, double>, double, float>;
  using Wide = ComputeType<From>;
  ForTiles(a.pool, a.out[0].shape.elements(), kFlatTile, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      a.out[0].as<To>()[i] = static_cast<To>(static_cast<C>(static_cast<Wide>(a.in[0].as<const From>()[i])));
    }
  });
}

template <typename From>
absl::Status RunCast(const KernelArgs& a) {
  if (a.out[0].dtype == DType::kF64) CastTo<From, double>(a);
  if (a.out[0].dtype == DType::kF32) CastTo<From, float>(a);
  if (a.out[0].dtype == DType::kBF16) CastTo<From, BF16>(a);
  return absl::OkStatus();
}

// A whole tensor is summed in tiles, whose sums lie in the workspace and are then added in order.
int64_t SumWorkspace(const Op& op, std::span<const TensorRef> in) {
  if (DimOf(op) >= 0) return 0;
  return (in[0].shape.elements() + kSumTile - 1) / kSumTile * SizeOf(DType::kF64);
}

template <typename T>
absl::Status SumAll(const KernelArgs& a) {
  const T* x = a.in[0].as<const T>();
  double* sums = reinterpret_cast<double*>(a.workspace.data());
  const int64_t n = a.in[0].shape.elements();
  ForTiles(a.pool, n, kSumTile, [&](int64_t begin, int64_t end) {
    double sum = 0;
    for (int64_t i = begin; i < end; ++i) sum += static_cast<ComputeType<T>>(x[i]);
    sums[begin / kSumTile] = sum;
  });
  double total = 0;
  for (int64_t i = 0; i < (n + kSumTile - 1) / kSumTile; ++i) total += sums[i];
  a.out[0].as<T>()[0] = static_cast<T>(static_cast<ComputeType<T>>(total));
  return absl::OkStatus();
}

template <typename T>
absl::Status RunReduceSum(const KernelArgs& a) {
  if (DimOf(a.op) < 0) return SumAll<T>(a);
  const OuterInner s = SplitAt(a.in[0].shape, DimOf(a.op));
  const int64_t blocks = (s.inner + kColumnTile - 1) / kColumnTile;
  ParallelFor(a.pool, s.outer * blocks, [&](int64_t tile) {
    const int64_t o = tile / blocks, begin = tile % blocks * kColumnTile,
                  width = std::min(kColumnTile, s.inner - begin);
    const T* x = a.in[0].as<const T>() + o * s.n * s.inner + begin;
    T* y = a.out[0].as<T>() + o * s.inner + begin;
    double sums[kColumnTile];
    std::fill_n(sums, width, 0.0);
    for (int64_t j = 0; j < s.n; ++j) {
      for (int64_t i = 0; i < width; ++i) sums[i] += static_cast<ComputeType<T>>(x[j * s.inner + i]);
    }
    for (int64_t i = 0; i < width; ++i) y[i] = static_cast<T>(static_cast<ComputeType<T>>(sums[i]));
  });
  return absl::OkStatus();
}

template <typename T>
absl::Status RunBroadcast(const KernelArgs& a) {
  const T* x = a.in[0].as<const T>();
  T* y = a.out[0].as<T>();
  const Shape& shape = a.out[0].shape;
  const OuterInner s = DimOf(a.op) < 0 ? OuterInner{1, shape.elements(), 1} : SplitAt(shape, DimOf(a.op));
  ForTiles(a.pool, shape.elements(), kFlatTile, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) y[i] = x[i / (s.n * s.inner) * s.inner + i % s.inner];
  });
  return absl::OkStatus();
}

}  // namespace

void AddMoveKernels(KernelTable& table) {
  for (DType t : kAllDTypes) {
    table.Add("slice", t, {RunSlice, nullptr, StreamingCost});
    table.Add("pad_slice", t, {RunPadSlice, nullptr, StreamingCost});
    table.Add("concat", t, {RunConcat, nullptr, StreamingCost});
  }
  AddForFloats(table, "cast", []<typename T>() { return Kernel{RunCast<T>, nullptr, StreamingCost}; });
  AddForFloats(table, "reduce_sum", []<typename T>() { return Kernel{RunReduceSum<T>, SumWorkspace, StreamingCost}; });
  AddForFloats(table, "broadcast", []<typename T>() { return Kernel{RunBroadcast<T>, nullptr, StreamingCost}; });
}

}  // namespace strata
