#include "tests/testing/gpu_job.h"

#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

namespace strata::testing {
namespace {

double Distance(const JobRun& a, const JobRun& b) {
  double difference = 0, norm = 0;
  for (const auto& [name, values] : b.parameters) {
    for (size_t i = 0; i < values.size(); ++i) {
      const double d = a.parameters.at(name)[i] - values[i];
      difference += d * d;
      norm += values[i] * values[i];
    }
  }
  return std::sqrt(difference / norm);
}

}  // namespace

JobConfig GpuJobOf(ModelArch arch, int64_t accumulate) {
  JobConfig c = SmallJobOf(arch, 1, 1, accumulate);
  c.model.vocab = 96;
  c.model.dim = 128;
  c.model.heads = 2;
  c.model.kv_heads = arch == ModelArch::kLlama ? 1 : 2;
  c.model.ffn = 192;
  c.model.seq = 64;
  c.model.init_std = 0.05;
  if (arch == ModelArch::kBert) c.model.mask_token = 95;
  c.batch = {.tokens = 8 * 64, .micro = 8 / accumulate, .accumulate = accumulate};
  c.optim.lr = 1e-3;
  return c;
}

absl::StatusOr<std::unique_ptr<Device>> OpenGpu(int rank) { return CudaDevice::Open(rank); }

absl::StatusOr<JobRun> Train(JobConfig config, DType dtype, const KernelTable& kernels, const OpenRankDevice& open,
                             int num_steps, StepTrace* trace) {
  config.precision.compute = dtype;
  std::vector<int> steps(num_steps);
  std::iota(steps.begin(), steps.end(), 1);
  return RunJob(config, steps, TableRows(config.model.vocab, 3), std::numeric_limits<double>::infinity(), kernels,
                nullptr, open, trace);
}

absl::StatusOr<JobRun> Measure(const JobConfig& config) { return Train(config, DType::kF64, CpuKernels(), nullptr); }

void ExpectAlike(const JobConfig& config, const JobRun& want, std::span<const JobTolerance> tolerances,
                 Determinism determinism, const OpenRankDevice& open) {
  for (const JobTolerance& t : tolerances) {
    SCOPED_TRACE(Name(t.dtype));
    const auto run = Train(config, t.dtype, CudaKernels(determinism), open);
    ASSERT_TRUE(run.ok()) << run.status();
    for (size_t s = 0; s < want.steps.size(); ++s) {
      EXPECT_NEAR(run->steps[s].loss / want.steps[s].loss, 1, t.loss) << "step " << s + 1;
      EXPECT_NEAR(run->steps[s].grad_norm / want.steps[s].grad_norm, 1, t.gradient_norm) << "step " << s + 1;
    }
    EXPECT_EQ(run->eval_tokens, want.eval_tokens);
    EXPECT_NEAR(run->eval_nats / want.eval_nats, 1, t.loss);
    EXPECT_LE(Distance(*run, want), t.parameters);
  }
}

}  // namespace strata::testing
