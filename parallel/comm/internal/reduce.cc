#include "parallel/comm/internal/reduce.h"

#include <algorithm>

#include "core/base/check.h"

namespace strata::internal {
namespace {

constexpr int64_t kBlock = 512;  // elements accumulated on the stack at a time

struct Sum {
  template <typename A>
  static A Apply(A a, A x) {
    return a + x;
  }
};
struct Max {
  template <typename A>
  static A Apply(A a, A x) {
    return x > a || x != x ? x : a;
  }
};

template <typename T, typename Acc, typename F>
void ReduceAs(std::span<const void* const> in, int64_t first, int64_t count, T* out) {
  Acc acc[kBlock];
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t n = std::min(kBlock, count - begin);
    const T* x0 = static_cast<const T*>(in[0]) + first + begin;
    for (int64_t i = 0; i < n; ++i) acc[i] = static_cast<Acc>(x0[i]);
    for (const void* p : in.subspan(1)) {
      const T* x = static_cast<const T*>(p) + first + begin;
      for (int64_t i = 0; i < n; ++i) acc[i] = F::template Apply<Acc>(acc[i], static_cast<Acc>(x[i]));
    }
    for (int64_t i = 0; i < n; ++i) out[begin + i] = static_cast<T>(acc[i]);
  }
}

template <typename F>
void ReduceWith(DType dtype, std::span<const void* const> in, int64_t first, int64_t count, void* out) {
  switch (dtype) {
    case DType::kF64: return ReduceAs<double, double, F>(in, first, count, static_cast<double*>(out));
    case DType::kF32: return ReduceAs<float, float, F>(in, first, count, static_cast<float*>(out));
    case DType::kBF16: return ReduceAs<BF16, float, F>(in, first, count, static_cast<BF16*>(out));
    case DType::kI64: return ReduceAs<int64_t, int64_t, F>(in, first, count, static_cast<int64_t*>(out));
    case DType::kI32: return ReduceAs<int32_t, int64_t, F>(in, first, count, static_cast<int32_t*>(out));
    case DType::kU8: return ReduceAs<uint8_t, int64_t, F>(in, first, count, static_cast<uint8_t*>(out));
    case DType::kLow16: break;
  }
  STRATA_CHECK(false);  // halves are no numbers
}

}  // namespace

void Reduce(ReduceOp op, DType dtype, std::span<const void* const> in, int64_t first, int64_t count, void* out) {
  if (op == ReduceOp::kMax) {
    ReduceWith<Max>(dtype, in, first, count, out);
  } else {
    ReduceWith<Sum>(dtype, in, first, count, out);
  }
}

}  // namespace strata::internal
