// quantize, dequantize, dequantize_sum on the GPU: blocks and records of core/ops/quantize.h, with the CPU's bits. 64 threads
// a block of 256 elements, 4 neighbours each.
#include "core/ops/quantize.h"

#include "core/kernels/cuda_util.cuh"

namespace strata {
namespace {

constexpr int kThreads = static_cast<int>(kQuantBlock / 4);

template <typename T, int kBits>
__global__ void __launch_bounds__(kThreads) QuantizeBlocks(const T* x, uint8_t* out) {
  constexpr int kMax = kBits == 8 ? 127 : 7, kRecord = kQuantBlock * kBits / 8 + 4;
  __shared__ float warp[2];
  const int64_t b = blockIdx.x;
  float v[4], amax = 0;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    v[j] = ToFloat(x[b * kQuantBlock + threadIdx.x * 4 + j]);
    amax = fmaxf(amax, isfinite(v[j]) ? fabsf(v[j]) : INFINITY);
  }
#pragma unroll
  for (int d = 16; d > 0; d /= 2) amax = fmaxf(amax, __shfl_xor_sync(0xffffffffu, amax, d));
  if (threadIdx.x % 32 == 0) warp[threadIdx.x / 32] = amax;
  __syncthreads();
  amax = fmaxf(warp[0], warp[1]);
  const bool finite = isfinite(amax);
  const float scale =
      finite ? __fdiv_rn(amax, static_cast<float>(kMax)) : __uint_as_float(0x7fc00000u);  // the CPU's NaN
  float inverse = finite && scale > 0 ? __fdiv_rn(1.0f, scale) : 0.0f;
  if (!isfinite(inverse)) inverse = 0;
  uint8_t* const record = out + b * kRecord;
  int q[4];
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    q[j] = inverse == 0 ? 0
                        : static_cast<int>(fminf(fmaxf(rintf(__fmul_rn(v[j], inverse)), -static_cast<float>(kMax)),
                                                 static_cast<float>(kMax)));
  }
  if constexpr (kBits == 8) {
    const uint32_t packed = (q[0] & 255) | (q[1] & 255) << 8 | (q[2] & 255) << 16 | static_cast<uint32_t>(q[3]) << 24;
    reinterpret_cast<uint32_t*>(record)[threadIdx.x] = packed;
  } else {
    const int packed = (q[0] + 8) | (q[1] + 8) << 4 | (q[2] + 8) << 8 | (q[3] + 8) << 12;
    reinterpret_cast<uint16_t*>(record)[threadIdx.x] = static_cast<uint16_t>(packed);
  }
  if (threadIdx.x == 0) *reinterpret_cast<float*>(record + kRecord - 4) = scale;
}

// The sum of `rows` records, `stride` bytes apart, in order.
template <typename T, int kBits>
__global__ void __launch_bounds__(kThreads) DequantizeBlocks(const uint8_t* in, int64_t rows, int64_t stride, T* out) {
  constexpr int kRecord = kQuantBlock * kBits / 8 + 4;
  const int64_t b = blockIdx.x;
  float sum[4] = {};
  for (int64_t r = 0; r < rows; ++r) {
    const uint8_t* const record = in + r * stride + b * kRecord;
    const float scale = *reinterpret_cast<const float*>(record + kRecord - 4);
    const uint32_t packed = kBits == 8 ? reinterpret_cast<const uint32_t*>(record)[threadIdx.x]
                                       : reinterpret_cast<const uint16_t*>(record)[threadIdx.x];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int q = kBits == 8 ? static_cast<int8_t>(packed >> (8 * j)) : static_cast<int>(packed >> (4 * j) & 15) - 8;
      sum[j] = __fadd_rn(sum[j], __fmul_rn(static_cast<float>(q), scale));
    }
  }
#pragma unroll
  for (int j = 0; j < 4; ++j) out[b * kQuantBlock + threadIdx.x * 4 + j] = FromFloat<T>(sum[j]);
}

template <typename T>
absl::Status RunQuantize(const KernelArgs& a) {
  const QuantSpec& s = QuantSpecOf(a.op);
  const int64_t blocks = a.in[0].shape.elements() / kQuantBlock;
  const auto launch = [&](auto kernel) {
    kernel<<<static_cast<unsigned>(blocks), kThreads, 0, StreamOf(a)>>>(a.in[0].as<const T>(), a.out[0].as<uint8_t>());
  };
  s.bits == QuantBits::k8 ? launch(QuantizeBlocks<T, 8>) : launch(QuantizeBlocks<T, 4>);
  return Launched("quantize");
}

template <typename T>
absl::Status RunDequantize(const KernelArgs& a) {
  const int64_t blocks = a.out[0].shape.elements() / kQuantBlock;
  const int64_t rows = a.in[0].shape.rank == 2 ? a.in[0].shape[0] : 1;
  const auto launch = [&](auto kernel) {
    kernel<<<static_cast<unsigned>(blocks), kThreads, 0, StreamOf(a)>>>(a.in[0].as<const uint8_t>(), rows,
                                                                        a.in[0].shape.back(), a.out[0].as<T>());
  };
  QuantBitsOf(a.op) == QuantBits::k8 ? launch(DequantizeBlocks<T, 8>) : launch(DequantizeBlocks<T, 4>);
  return Launched("dequantize");
}

}  // namespace

void AddCudaQuantizeKernels(KernelTable& table) {
  table.Add("quantize", DType::kF32, {.run = RunQuantize<float>});
  table.Add("quantize", DType::kBF16, {.run = RunQuantize<CudaBF16>});
  table.Add("dequantize", DType::kF32, {.run = RunDequantize<float>});
  table.Add("dequantize", DType::kBF16, {.run = RunDequantize<CudaBF16>});
  table.Add("dequantize_sum", DType::kF32, {.run = RunDequantize<float>});
}

}  // namespace strata
