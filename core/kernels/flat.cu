// pack on the GPU: copies of the parts that do not lie in their places, float32 ones of a bf16 tensor rounded, and zeros
// between the parts.
#include "core/ops/flat.h"

#include "core/kernels/map.cuh"

namespace strata {
namespace {

struct RoundFn {
  __device__ void operator()(const float* x, float* y) const { y[0] = x[0]; }
};
cudaError_t Round(const TensorRef& part, std::byte* to, cudaStream_t stream) {
  const PitchedOut<CudaBF16, 1> out{{{reinterpret_cast<CudaBF16*>(to), 0}}};
  Map<1>(stream, RoundFn{}, 1, part.shape.elements(), out, Pitched<const float>{part.as<const float>(), 0});
  return cudaGetLastError();
}

absl::Status RunPack(const KernelArgs& a) {
  const std::vector<int64_t>& offsets = static_cast<const PackOp&>(a.op).offsets();
  const int64_t size = SizeOf(a.out[0].dtype);
  std::byte* const out = a.out[0].as<std::byte>();
  cudaStream_t const stream = StreamOf(a);
  int64_t end = 0;  // of the parts so far
  cudaError_t error = cudaSuccess;
  for (size_t i = 0; i <= a.in.size() && error == cudaSuccess; ++i) {
    const int64_t begin = (i < a.in.size() ? offsets[i] : a.out[0].shape.elements()) * size;
    if (begin > end) error = cudaMemsetAsync(out + end, 0, static_cast<size_t>(begin - end), stream);
    if (i == a.in.size()) break;
    if (error == cudaSuccess && a.in[i].dtype != a.out[0].dtype) {
      error = Round(a.in[i], out + begin, stream);
    } else if (error == cudaSuccess && a.in[i].data != out + begin) {
      error = cudaMemcpyAsync(out + begin, a.in[i].data, static_cast<size_t>(a.in[i].bytes()), cudaMemcpyDeviceToDevice,
                              stream);
    }
    end = begin + a.in[i].shape.elements() * size;
  }
  return CudaStatus(error, "pack");
}

}  // namespace

void AddCudaFlatKernels(KernelTable& table) {
  for (const DType t : {DType::kF32, DType::kBF16}) table.Add("pack", t, {.run = RunPack});
}

}  // namespace strata
