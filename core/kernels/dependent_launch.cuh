#pragma once
// Programmatic dependent launch, of Hopper: a kernel allows the next one in its stream to be launched while it ends, and that one, if
// launched early, waits until all before it are done before it reads or writes memory. In other launches neither does anything.

#include <cuda_runtime.h>

#include <cstdint>

namespace strata {

__device__ __forceinline__ void AllowNext() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
__device__ __forceinline__ void WaitForEarlier() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// kEarly: on a GPU of sm_90, of a kernel that calls WaitForEarlier(); behind one that calls AllowNext(), or ends.
enum class Launch : uint8_t { kBehind, kEarly };

template <typename... Params, typename... Args>
cudaError_t LaunchKernel(Launch launch, dim3 blocks, dim3 threads, cudaStream_t stream, void (*kernel)(Params...),
                         const Args&... args) {
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = blocks;
  config.blockDim = threads;
  config.stream = stream;
  config.attrs = &early;
  config.numAttrs = launch == Launch::kEarly ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, Params(args)...);
}

}  // namespace strata
