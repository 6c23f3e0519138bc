#pragma once
// Whole jobs on GPUs against float64 on one CPU rank, which sees the same rows.

#include <memory>
#include <span>

#include "absl/status/statusor.h"
#include "core/exec/cuda_device.h"
#include "tests/testing/gpu.h"
#include "tests/testing/small_job.h"

namespace strata::testing {

// Segments are captured at their second run and replayed from the third on.
inline int GpuJobSteps() { return SmallShapes() ? 3 : 6; }

// Sizes that cuDNN and adjacent weights need; 8 rows a step.
JobConfig GpuJobOf(ModelArch arch, int64_t accumulate);

absl::StatusOr<std::unique_ptr<Device>> OpenGpu(int rank);  // each rank its own

absl::StatusOr<JobRun> Train(JobConfig config, DType dtype, const KernelTable& kernels, const OpenRankDevice& open,
                             int num_steps = GpuJobSteps(), StepTrace* trace = nullptr);
absl::StatusOr<JobRun> Measure(const JobConfig& config);  // in float64 on the CPU

// Of a run in a dtype, relative to its measure: of the loss of every step and of the evaluation; of all parameters, by
// ||a - b|| / ||b||; of every step's gradient norm.
struct JobTolerance {
  DType dtype;
  double loss, parameters, gradient_norm = 1;
};
inline constexpr JobTolerance kJobTolerances[] = {{DType::kF32, 2e-6, 2e-5}, {DType::kBF16, 5e-3, 1e-2}};

// Expects of a run in each of the dtypes that it is like its measure.
void ExpectAlike(const JobConfig& config, const JobRun& want, std::span<const JobTolerance> tolerances = kJobTolerances,
                 Determinism determinism = Determinism::kFast, const OpenRankDevice& open = OpenGpu);

}  // namespace strata::testing
