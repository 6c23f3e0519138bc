// A counter through a mixing function: enough for timing and tests.
#include "core/kernels/cuda_util.cuh"
#include "core/kernels/gemm_cuda.h"

namespace strata {
namespace {

template <typename T>
__global__ void Fill(T* data, int64_t count, uint64_t seed) {
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < count; i += int64_t{gridDim.x} * blockDim.x) {
    uint64_t x = (static_cast<uint64_t>(i) + 1) * 0x9E3779B97F4A7C15u ^ seed * 0xD1B54A32D192ED03u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    data[i] = FromFloat<T>(static_cast<float>(static_cast<int32_t>(x >> 32)) * 0x1p-31f);
  }
}

}  // namespace

absl::Status FillRandom(void* data, DType dtype, int64_t count, uint64_t seed, cudaStream_t stream) {
  if (dtype == DType::kBF16) {
    Fill<<<1024, 256, 0, stream>>>(static_cast<CudaBF16*>(data), count, seed);
  } else {
    Fill<<<1024, 256, 0, stream>>>(static_cast<float*>(data), count, seed);
  }
  return Launched("fill_random");
}

}  // namespace strata
