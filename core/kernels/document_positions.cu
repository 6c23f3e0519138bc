// y[b, s] = positions[s] - starts[b, s].
#include "core/kernels/cost.h"
#include "core/kernels/cuda_util.cuh"

namespace strata {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads)
    Subtract(const int32_t* positions, const int32_t* starts, int64_t row, int64_t count, int32_t* y) {
  const int64_t i = blockIdx.x * int64_t{kThreads} + threadIdx.x;
  if (i < count) y[i] = positions[i % row] - starts[i];
}

absl::Status Run(const KernelArgs& a) {
  const int64_t count = a.out[0].shape.elements();
  if (count == 0) return absl::OkStatus();
  Subtract<<<static_cast<unsigned>(Ceil(count, kThreads)), kThreads, 0, StreamOf(a)>>>(
      a.in[0].as<const int32_t>(), a.in[1].as<const int32_t>(), a.in[0].shape[0], count, a.out[0].as<int32_t>());
  return Launched("document_positions");
}

}  // namespace

void AddCudaDocumentKernels(KernelTable& table) {
  table.Add("document_positions", DType::kI32, {.run = Run, .cost = StreamingCost});
}

}  // namespace strata
