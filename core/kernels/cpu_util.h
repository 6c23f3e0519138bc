#pragma once
// What the CPU kernels share: the type they compute in, registration by dtype, fixed tiles, [outer, n, inner] views.

#include <algorithm>
#include <span>
#include <string>
#include <type_traits>

#include "core/base/thread_pool.h"
#include "core/exec/device.h"
#include "core/kernels/cost.h"
#include "core/tensor/tensor.h"

namespace strata {

template <typename T>
using ComputeType = std::conditional_t<std::is_same_v<T, double>, double, float>;

// Registers make.operator()<T>(), a Kernel, for T = double, float and BF16.
template <typename Make>
void AddForFloats(KernelTable& table, const std::string& op, const Make& make) {
  table.Add(op, DType::kF64, make.template operator()<double>());
  table.Add(op, DType::kF32, make.template operator()<float>());
  table.Add(op, DType::kBF16, make.template operator()<BF16>());
}

// fn(begin, end) over [0, n) in tiles of `tile`.
template <typename Fn>
void ForTiles(ThreadPool* pool, int64_t n, int64_t tile, const Fn& fn) {
  ParallelFor(pool, (n + tile - 1) / tile, [&](int64_t i) { fn(i * tile, std::min(n, (i + 1) * tile)); });
}
inline constexpr int64_t kFlatTile = 16384;  // elements of an elementwise tile

// The tokens of x[B, S, ...], and fn(token) for each of them, in parallel by fixed tiles.
inline int64_t Tokens(const TensorRef& x) { return x.shape[0] * x.shape[1]; }
template <typename Fn>
void ForTokens(ThreadPool* pool, int64_t tokens, const Fn& fn) {
  constexpr int64_t kTokens = 16;
  ForTiles(pool, tokens, kTokens, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) fn(t);
  });
}

// A shape as [dims before `dim`, dim, dims after it].
struct OuterInner {
  int64_t outer = 1, n = 1, inner = 1;
};
inline OuterInner SplitAt(const Shape& shape, int dim) {
  OuterInner s;
  for (int i = 0; i < shape.rank; ++i) (i < dim ? s.outer : i == dim ? s.n : s.inner) *= shape[i];
  return s;
}

}  // namespace strata
