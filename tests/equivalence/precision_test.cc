// The same job in float32 and in bf16 (float32 master weights and moments) stays near float64, on one rank and on four.

#include <gtest/gtest.h>

#include "tests/testing/small_job.h"

namespace strata {
namespace {

using testing::JobRun;

constexpr int kSteps = 8;

JobRun RunIn(DType compute, int64_t dp, int64_t tp) {
  JobConfig config = testing::SmallJob(dp, tp, 2);
  config.precision.compute = compute;
  absl::StatusOr<JobRun> run = testing::RunJob(config, kSteps);
  EXPECT_TRUE(run.ok()) << run.status();
  return run.ok() ? *std::move(run) : JobRun{};
}

void ExpectNear(const JobRun& a, const JobRun& b, double tolerance) {
  ASSERT_EQ(a.steps.size(), static_cast<size_t>(kSteps));
  ASSERT_EQ(b.steps.size(), static_cast<size_t>(kSteps));
  for (int s = 0; s < kSteps; ++s) EXPECT_NEAR(a.steps[s].loss, b.steps[s].loss, tolerance) << "step " << s + 1;
}

TEST(Precision, Float32StaysNearFloat64) {
  const JobRun reference = RunIn(DType::kF64, 1, 1);
  ExpectNear(RunIn(DType::kF32, 1, 1), reference, 2e-4);
  ExpectNear(RunIn(DType::kF32, 2, 2), reference, 2e-4);
}

TEST(Precision, Bf16StaysNearFloat64AndMovesItsMasterWeights) {
  const JobRun reference = RunIn(DType::kF64, 1, 1), one = RunIn(DType::kBF16, 1, 1), four = RunIn(DType::kBF16, 2, 2);
  ExpectNear(one, reference, 3e-2);
  ExpectNear(four, reference, 3e-2);
  // A learning rate far below bf16's resolution of a weight still moves it in the end, through the master weights.
  EXPECT_NE(one.parameters.at("blocks.0.attn_norm.weight"), std::vector<double>(16, 1.0));
  EXPECT_NE(one.steps[0].loss, reference.steps[0].loss);  // it is bf16 that ran
}

}  // namespace
}  // namespace strata
