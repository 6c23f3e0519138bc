#pragma once
// What the kernels of one GPU share: its properties and the library state that belongs to it. Included by CUDA sources only.

#include <cuda_runtime.h>

#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "core/exec/cuda_device.h"

namespace strata {

class GemmPlans;       // core/kernels/gemm_cuda.h
class AttentionPlans;  // core/kernels/attention_cudnn.h

struct CudaContext {
  int index = 0;
  cudaDeviceProp properties{};
  std::shared_ptr<GemmPlans> gemms;           // made at the first use, on the rank's thread
  std::shared_ptr<AttentionPlans> attention;  // likewise
};

inline CudaContext& CudaContextOf(const KernelArgs& a) { return static_cast<CudaDevice*>(a.device)->context(); }
inline cudaStream_t StreamOf(const KernelArgs& a) { return static_cast<cudaStream_t>(a.stream.native); }

// OK, or Internal (ResourceExhausted for memory) naming the call and CUDA's reason.
absl::Status CudaStatus(cudaError_t error, const char* what);
// The last launch's error: every kernel's run() ends with it.
inline absl::Status Launched(const char* kernel) { return CudaStatus(cudaGetLastError(), kernel); }

// Seconds of one `launch` on the device: the mean of `runs`, which follow each other on `stream`. Blocks.
absl::StatusOr<double> SecondsOnStream(cudaStream_t stream, int runs, const std::function<absl::Status()>& launch);

}  // namespace strata
