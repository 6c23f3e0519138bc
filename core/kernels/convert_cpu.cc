// swap_blocks: out[j, i, :] = in[i, j, :].   slice_shard: out = the box of `in` that starts at out.origin - in.origin.
// Both move bytes, so one function serves every dtype of a size.

#include "core/base/thread_pool.h"
#include "core/graph/op.h"
#include "core/kernels/cpu_kernels.h"

namespace strata {
namespace {

absl::Status SwapBlocks(const KernelArgs& args) {
  const TensorRef& in = args.in[0];
  const TensorRef& out = args.out[0];
  const int64_t a = in.shape[0], b = in.shape[1], row = in.shape[2] * SizeOf(in.dtype);
  ParallelFor(args.pool, b, [&](int64_t j) {
    for (int64_t i = 0; i < a; ++i) {
      std::memcpy(out.as<std::byte>() + (j * a + i) * row, in.as<std::byte>() + (i * b + j) * row, row);
    }
  });
  return absl::OkStatus();
}

// Sliced along one dim d: rows of [outer, len, inner] out of [outer, whole, inner].
absl::Status SliceShard(const KernelArgs& args) {
  const TensorRef& in = args.in[0];
  const TensorRef& out = args.out[0];
  int d = 0;
  while (d + 1 < in.shape.rank && in.shape[d] == out.shape[d]) ++d;
  int64_t outer = 1, inner = SizeOf(in.dtype);
  for (int i = 0; i < d; ++i) outer *= in.shape[i];
  for (int i = d + 1; i < in.shape.rank; ++i) inner *= in.shape[i];
  const int64_t start = (out.origin[d] - in.origin[d]) * inner, from = in.shape[d] * inner, to = out.shape[d] * inner;
  for (int64_t o = 0; o < outer; ++o) {
    std::memcpy(out.as<std::byte>() + o * to, in.as<std::byte>() + o * from + start, to);
  }
  return absl::OkStatus();
}

}  // namespace

void AddConvertKernels(KernelTable& table) {
  for (DType t : {DType::kF64, DType::kF32, DType::kBF16, DType::kI64, DType::kI32, DType::kU8}) {
    table.Add("swap_blocks", t, {.run = SwapBlocks});
    table.Add("slice_shard", t, {.run = SliceShard});
  }
}

}  // namespace strata
