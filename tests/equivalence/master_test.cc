// precision.master = "split": the same training as with whole float32 masters, in 2 bytes a weight less. The bits are the same until a
// master lies in the middle between two bf16, one of 65,536: that one's live weight is rounded half up and not to even.

#include <gtest/gtest.h>

#include <cmath>

#include "launch/job/compile.h"
#include "tests/testing/small_job.h"

namespace strata {
namespace {

using testing::JobRun;
using testing::RunJob;
using testing::SmallJob;

JobConfig Config(MasterFormat master, int64_t dp, int64_t tp, int64_t accumulate) {
  JobConfig c = SmallJob(dp, tp, accumulate);
  c.precision = {.compute = DType::kBF16, .master = master};
  return c;
}

void ExpectSameTraining(const std::function<void(JobConfig&)>& change, int64_t dp = 1, int64_t tp = 1,
                        int64_t accumulate = 1) {
  std::vector<JobRun> runs;
  for (const MasterFormat master : {MasterFormat::kFloat32, MasterFormat::kSplit}) {
    JobConfig config = Config(master, dp, tp, accumulate);
    change(config);
    absl::StatusOr<JobRun> run = RunJob(config, 6);
    ASSERT_TRUE(run.ok()) << run.status();
    runs.push_back(*std::move(run));
  }
  constexpr size_t kWithoutTies = 3;  // of these jobs
  for (size_t i = 0; i < runs[0].steps.size(); ++i) {
    const StepReport &whole = runs[0].steps[i], &split = runs[1].steps[i];
    const double ties = i < kWithoutTies ? 0 : 2e-3;
    EXPECT_NEAR(whole.loss, split.loss, ties) << i;
    EXPECT_NEAR(whole.grad_norm, split.grad_norm, ties) << i;
  }
  int64_t apart = 0, all = 0;
  for (const auto& [name, values] : runs[0].parameters) {
    const std::vector<double>& others = runs[1].parameters.at(name);
    for (size_t i = 0; i < values.size(); ++i) {
      ASSERT_NEAR(values[i], others[i], 0.01 * std::abs(values[i]) + 1e-4) << name;
      apart += values[i] != others[i] ? 1 : 0;
      ++all;
    }
  }
  EXPECT_LE(apart, all / 10);
}

TEST(SplitMasters, TrainAsWholeOnesDo) {
  const auto as_it_is = [](JobConfig&) {};
  ExpectSameTraining(as_it_is);
  ExpectSameTraining(as_it_is, 1, 2, 2);
  ExpectSameTraining(as_it_is, 2, 2, 1);
  for (const int64_t stage : {1, 2, 3}) {
    SCOPED_TRACE(stage);
    ExpectSameTraining([&](JobConfig& c) { c.parallel.zero.stage = stage; }, 2, 1, 2);
  }
  ExpectSameTraining([](JobConfig& c) { c.parallel.pp = 2; }, 1, 1, 4);
  ExpectSameTraining([](JobConfig& c) { c.precision.gradients = GradientFormat::kBf16; }, 2);
  ExpectSameTraining([](JobConfig& c) { c.optim.type = OptimizerType::kSgd; });
}

TEST(SplitMasters, TakeTwoBytesAWeightLess) {
  int64_t bytes[2] = {}, weights = 0;
  for (const MasterFormat master : {MasterFormat::kFloat32, MasterFormat::kSplit}) {
    const JobConfig config = Config(master, 1, 1, 1);
    const absl::StatusOr<Job> job = CompileTraining(config, CpuKernels());
    ASSERT_TRUE(job.ok()) << job.status();
    const absl::StatusOr<std::vector<Plan>> plans = PlanRanks(*job, CpuKernels());
    ASSERT_TRUE(plans.ok()) << plans.status();
    weights = 0;
    for (const PlannedState& s : plans->front().states) {
      if (s.role != Role::kMaster || s.is_view) continue;
      EXPECT_EQ(s.spec.dtype, master == MasterFormat::kSplit ? DType::kLow16 : DType::kF32);
      bytes[static_cast<int>(master)] += s.count * SizeOf(s.spec.dtype);
      weights += s.count;
    }
  }
  EXPECT_GT(weights, 1000);
  EXPECT_EQ(bytes[0] - bytes[1], 2 * weights);
}

}  // namespace
}  // namespace strata
