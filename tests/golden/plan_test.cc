// The printed plan of a small job, every step. After an intended change: STRATA_UPDATE_GOLDEN=1 build/golden_tests.

#include <gtest/gtest.h>

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "core/base/env.h"
#include "core/plan/plan.h"
#include "launch/job/compile.h"
#include "tests/testing/small_job.h"

namespace strata {
namespace {

std::string PlanText(int64_t dp, int64_t tp) {
  JobConfig config = testing::SmallJob(dp, tp, 2);
  config.model.layers = 1;
  const KernelTable kernels = CpuKernels();
  const absl::StatusOr<Job> job = CompileTraining(config, kernels);
  if (!job.ok()) return job.status().ToString();
  const absl::StatusOr<std::vector<Plan>> plans = PlanRanks(*job, kernels);
  return plans.ok() ? Print(plans->back(), PrintDetail::kSteps) : plans.status().ToString();
}

void ExpectGolden(const std::string& name, const std::string& text) {
  const std::string path = absl::StrCat(STRATA_SOURCE_DIR, "/tests/golden/", name);
  if (std::getenv("STRATA_UPDATE_GOLDEN") != nullptr) {
    ASSERT_TRUE(WriteTextAtomically(Env::Posix(), path, text).ok());
  }
  const absl::StatusOr<std::string> want = ReadText(Env::Posix(), path);
  ASSERT_TRUE(want.ok()) << want.status();
  EXPECT_EQ(text, *want);
}

TEST(GoldenPlan, OneRank) { ExpectGolden("plan_dp1_tp1.txt", PlanText(1, 1)); }
TEST(GoldenPlan, DataTimesTensorParallel) { ExpectGolden("plan_dp2_tp2.txt", PlanText(2, 2)); }

}  // namespace
}  // namespace strata
