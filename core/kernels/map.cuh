#pragma once
// Elementwise kernels: out_o[r, c] = fn(in_0[r, c], ...) in float32, by 16-byte accesses where sizes and addresses allow
// them. Each thread reads its elements of every operand before it writes, so an output may be an input.

#include <tuple>

#include "core/kernels/cuda_util.cuh"

namespace strata {

template <typename T>
struct Pitched {  // row r begins at data + r pitch; a pitch of 0 repeats one row
  T* data;
  int64_t pitch;
};
template <typename T, int kCount>
struct PitchedOut {
  Pitched<T> at[kCount];
};

inline constexpr int kMapThreads = 256, kMapWidth = 8;

__device__ __forceinline__ int64_t Quotient(int64_t n, int64_t d) {
  if (((n | d) >> 32) == 0) return static_cast<uint32_t>(n) / static_cast<uint32_t>(d);
  return n / d;
}

// Fn: __device__ void operator()(const float* in, float* out) const. A row has `groups` groups of kWidth elements.
template <int kWidth, int kOut, typename Fn, typename Out, typename... In>
__global__ void __launch_bounds__(kMapThreads)
    MapKernel(Fn fn, int64_t rows, int64_t groups, PitchedOut<Out, kOut> out, Pitched<const In>... in) {
  const int64_t i = blockIdx.x * int64_t{kMapThreads} + threadIdx.x;
  if (i >= rows * groups) return;
  const int64_t row = rows == 1 ? 0 : Quotient(i, groups), column = (i - row * groups) * kWidth;
  float x[sizeof...(In)][kWidth], y[kOut][kWidth];
  int k = 0;
  (LoadFloats<kWidth>(in.data + row * in.pitch + column, x[k++]), ...);
#pragma unroll
  for (int j = 0; j < kWidth; ++j) {
    float from[sizeof...(In)], to[kOut];
#pragma unroll
    for (int n = 0; n < static_cast<int>(sizeof...(In)); ++n) from[n] = x[n][j];
    fn(from, to);
#pragma unroll
    for (int n = 0; n < kOut; ++n) y[n][j] = to[n];
  }
#pragma unroll
  for (int n = 0; n < kOut; ++n) StoreFloats<kWidth>(out.at[n].data + row * out.at[n].pitch + column, y[n]);
}

template <int kWidth, int kOut, typename Fn, typename Out, typename... In>
void LaunchMap(cudaStream_t stream, const Fn& fn, int64_t rows, int64_t columns, PitchedOut<Out, kOut> out,
               Pitched<const In>... in) {
  const int64_t groups = columns / kWidth, blocks = Ceil(rows * groups, kMapThreads);
  if (blocks == 0) return;
  MapKernel<kWidth, kOut, Fn, Out, In...>
      <<<static_cast<unsigned>(blocks), kMapThreads, 0, stream>>>(fn, rows, groups, out, in...);
}

template <int kOut, typename Fn, typename Out, typename... In>
void Map(cudaStream_t stream, const Fn& fn, int64_t rows, int64_t columns, PitchedOut<Out, kOut> out,
         Pitched<const In>... in) {
  bool wide = (Aligned16({in.data}) && ...) && ((in.pitch % kMapWidth == 0) && ...);
  for (const Pitched<Out>& o : out.at) wide = wide && Aligned16({o.data}) && o.pitch % kMapWidth == 0;
  const int64_t tail = columns % kMapWidth, body = columns - tail;
  if (!wide || (rows > 1 && tail != 0)) return LaunchMap<1, kOut>(stream, fn, rows, columns, out, in...);
  LaunchMap<kMapWidth, kOut>(stream, fn, rows, body, out, in...);
  for (Pitched<Out>& o : out.at) o.data += body;
  LaunchMap<1, kOut>(stream, fn, rows, tail, out, Pitched<const In>{in.data + body, in.pitch}...);
}

// Over contiguous operands of one shape: the first kOut outputs, and the inputs of types In in their order.
template <typename Out, int kOut, typename... In, typename Fn>
absl::Status MapFlat(const KernelArgs& a, const Fn& fn) {
  PitchedOut<Out, kOut> out;
  for (int n = 0; n < kOut; ++n) out.at[n] = {a.out[n].as<Out>(), 0};
  int k = 0;
  const auto next = [&]<typename T>(const T*) { return Pitched<const T>{a.in[k++].as<const T>(), 0}; };
  std::apply([&](auto... in) { Map<kOut>(StreamOf(a), fn, 1, a.out[0].shape.elements(), out, in...); },
             std::tuple<Pitched<const In>...>{next(static_cast<const In*>(nullptr))...});
  return Launched("elementwise");
}

}  // namespace strata
