#include "core/kernels/peer_sum.h"

#include "absl/strings/str_format.h"
#include "core/kernels/cuda_util.cuh"

namespace strata {
namespace {

constexpr int kThreads = 512;
constexpr int kUnroll = 4;  // vectors that a thread has on their way: the link is far

struct Inputs {
  const void* at[kMaxPeers];
};

template <typename T>
struct Sums {  // what sums are kept in
  using Type = T;
};
template <>
struct Sums<CudaBF16> {
  using Type = float;
};

template <typename T>
__device__ __forceinline__ typename Sums<T>::Type Widen(T x) {
  if constexpr (std::is_same_v<T, CudaBF16>) {
    return __bfloat162float(x);
  } else {
    return x;
  }
}
template <typename T>
__device__ __forceinline__ T Narrow(typename Sums<T>::Type x) {
  if constexpr (std::is_same_v<T, CudaBF16>) {
    return __float2bfloat16_rn(x);
  } else {
    return x;
  }
}

template <typename S>
__device__ __forceinline__ S Join(ReduceOp op, S a, S b) {
  return op == ReduceOp::kSum ? a + b : (a < b ? b : a);
}

template <typename T>
__global__ void __launch_bounds__(kThreads) VectorKernel(ReduceOp op, Inputs in, int n, int64_t vectors, T* out) {
  using S = typename Sums<T>::Type;
  constexpr int kSize = Vec<T>::kSize;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  for (int64_t i = first; i < vectors; i += kUnroll * stride) {
    S sum[kUnroll][kSize];
    for (int p = 0; p < n; ++p) {
      Vec<T> v[kUnroll];
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
        if (i + u * stride < vectors) v[u] = LoadVec(static_cast<const T*>(in.at[p]) + (i + u * stride) * kSize);
      }
#pragma unroll
      for (int u = 0; u < kUnroll; ++u) {
#pragma unroll
        for (int k = 0; k < kSize; ++k) {
          const S x = Widen(v[u].v[k]);
          sum[u][k] = p == 0 ? x : Join(op, sum[u][k], x);
        }
      }
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      Vec<T> v;
#pragma unroll
      for (int k = 0; k < kSize; ++k) v.v[k] = Narrow<T>(sum[u][k]);
      if (i + u * stride < vectors) StoreVec(out + (i + u * stride) * kSize, v);
    }
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    ScalarKernel(ReduceOp op, Inputs in, int n, int64_t begin, int64_t count, T* out) {
  using S = typename Sums<T>::Type;
  for (int64_t i = begin + static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count;
       i += static_cast<int64_t>(gridDim.x) * kThreads) {
    S sum = Widen(static_cast<const T*>(in.at[0])[i]);
    for (int p = 1; p < n; ++p) sum = Join(op, sum, Widen(static_cast<const T*>(in.at[p])[i]));
    out[i] = Narrow<T>(sum);
  }
}

template <typename T>
absl::Status Sum(ReduceOp op, const Inputs& in, int n, int64_t count, void* out, int blocks, cudaStream_t stream) {
  bool aligned = Aligned16({out});
  for (int p = 0; p < n; ++p) aligned = aligned && Aligned16({in.at[p]});
  const int64_t vectors = aligned ? count / Vec<T>::kSize : 0, rest = vectors * Vec<T>::kSize;
  const auto grid = [&](int64_t work) {
    return static_cast<int>(std::min<int64_t>(blocks, (work + kThreads - 1) / kThreads));
  };
  if (vectors > 0) {
    VectorKernel<T><<<grid(vectors), kThreads, 0, stream>>>(op, in, n, vectors, static_cast<T*>(out));
  }
  if (rest < count) {
    ScalarKernel<T><<<grid(count - rest), kThreads, 0, stream>>>(op, in, n, rest, count, static_cast<T*>(out));
  }
  return Launched("PeerSum");
}

}  // namespace

absl::Status PeerSum(ReduceOp op, DType dtype, std::span<const void* const> in, int64_t count, void* out, int blocks,
                     cudaStream_t stream) {
  if (in.size() > kMaxPeers) {
    return absl::InvalidArgumentError(absl::StrFormat("a sum over %d GPUs; at most %d", in.size(), kMaxPeers));
  }
  if (count == 0) return absl::OkStatus();
  Inputs inputs{};
  for (size_t p = 0; p < in.size(); ++p) inputs.at[p] = in[p];
  const int n = static_cast<int>(in.size());
  switch (dtype) {
    case DType::kF32: return Sum<float>(op, inputs, n, count, out, blocks, stream);
    case DType::kBF16: return Sum<CudaBF16>(op, inputs, n, count, out, blocks, stream);
    case DType::kI32: return Sum<int32_t>(op, inputs, n, count, out, blocks, stream);
    case DType::kI64: return Sum<int64_t>(op, inputs, n, count, out, blocks, stream);
    default: return absl::InvalidArgumentError(absl::StrFormat("no sums of %s between GPUs", Name(dtype)));
  }
}

}  // namespace strata
