// pack on the GPU: copies of the parts that do not lie in their places, and zeros between the parts.

#include "core/ops/flat.h"

#include "core/exec/cuda_context.h"
#include "core/kernels/cuda_kernels.h"

namespace strata {
namespace {

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
    if (a.in[i].data != out + begin && error == cudaSuccess) {
      error = cudaMemcpyAsync(out + begin, a.in[i].data, static_cast<size_t>(a.in[i].bytes()), cudaMemcpyDeviceToDevice,
                              stream);
    }
    end = begin + a.in[i].bytes();
  }
  return CudaStatus(error, "pack");
}

}  // namespace

void AddCudaFlatKernels(KernelTable& table) {
  for (const DType t : {DType::kF32, DType::kBF16}) table.Add("pack", t, {.run = RunPack});
}

}  // namespace strata
