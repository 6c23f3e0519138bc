#pragma once
// GPU kernels against the float64 interpreter. Every test that needs a GPU begins with STRATA_NEEDS_GPU(), which skips it
// with the reason where there is none, and fails it where the environment says STRATA_REQUIRE_GPU=1.

#include <gtest/gtest.h>

#include <cstdlib>
#include <span>
#include <string>

#include "core/exec/cuda_device.h"
#include "tests/testing/op_checks.h"

#define STRATA_NEEDS_GPU() STRATA_NEEDS_GPUS(1)
// The same of several GPUs; STRATA_REQUIRE_GPU says how many there must be.
#define STRATA_NEEDS_GPUS(n)                                                                                   \
  do {                                                                                                         \
    if (CudaDeviceCount() < (n)) {                                                                             \
      const char* required = std::getenv("STRATA_REQUIRE_GPU");                                                \
      const std::string what =                                                                                 \
          std::to_string(n) + " needed, " + std::to_string(CudaDeviceCount()) + " found: " + CudaStatusLine(); \
      if (required != nullptr && std::atoi(required) >= (n)) FAIL() << what;                                   \
      GTEST_SKIP() << what;                                                                                    \
    }                                                                                                          \
  } while (false)

namespace strata::testing {

// Under compute-sanitizer kernels take a hundred times as long: with STRATA_SMALL=1 tests take shapes that just have a full
// tile, an edge and a second round of each loop.
inline bool SmallShapes() { return std::getenv("STRATA_SMALL") != nullptr; }
template <typename T, size_t kAll, size_t kSmall>
std::span<const T> ShapesOf(const T (&all)[kAll], const T (&small)[kSmall]) {
  return SmallShapes() ? std::span<const T>(small) : std::span<const T>(all);
}

// Prepares and runs one kernel on copies of the operands in device memory. Outputs that alias no input, and the workspace, are NaN
// before it; 256 bytes past each output and the workspace must be what they were after it.
absl::Status RunOnDevice(Device& device, const Kernel& kernel, const KernelArgs& host);

// `fn` on the GPU in `dtype`, and on the same rounded inputs in float64 on the CPU: for each output ||a - b|| / ||b||
// (||a|| where b is zero). NaN and infinities must be at the same places; otherwise the error is infinite.
struct GpuOptions {
  bool overwrite = true;
  bool in_place = false;  // on the GPU; see EvalOptions
  StepScalars scalars{};
  Determinism determinism = Determinism::kFast;
};
absl::StatusOr<std::vector<double>> GpuErrors(const GraphFn& fn, const std::vector<Tensor>& inputs, DType dtype,
                                              const GpuOptions& options = {});
// Expects of every output's GpuErrors, in f32 and bf16, that it is at most `slack` GpuTolerance.
void ExpectGpuClose(const GraphFn& fn, const std::vector<Tensor>& inputs, const GpuOptions& options = {},
                    double slack = 1);

// The kernel of `fn`'s last node alone, on the GPU and on the CPU in the inputs' own dtypes: errors as GpuErrors. `edit` may
// make operands shards, by their origin.
using EditOperands = std::function<void(std::span<TensorRef> in, std::span<TensorRef> out)>;
absl::StatusOr<std::vector<double>> GpuKernelErrors(const GraphFn& fn, const std::vector<Tensor>& inputs,
                                                    const EditOperands& edit = {}, const GpuOptions& options = {});

// What a GpuErrors may be after one rounding of the result and sums in float32.
constexpr double GpuTolerance(DType t) { return t == DType::kF32 ? 2e-6 : 4e-3; }

}  // namespace strata::testing
