// float64: any layout equals the one-rank run after several steps, loss and every parameter, with uneven token masks.

#include <gtest/gtest.h>

#include <cmath>

#include "tests/testing/small_job.h"

namespace strata {
namespace {

using testing::JobRun;
using testing::RunJob;
using testing::SmallJob;

constexpr int kSteps = 5;
constexpr double kTolerance = 1e-10;  // of max|a-b| / max(max|b|, 1)

double Difference(const std::vector<double>& a, const std::vector<double>& b) {
  double diff = 0, scale = 1;
  for (size_t i = 0; i < b.size(); ++i) {
    diff = std::max(diff, std::abs(a[i] - b[i]));
    scale = std::max(scale, std::abs(b[i]));
  }
  return diff / scale;
}

const JobRun& OneRank() {
  static const JobRun* const kRun = [] {
    absl::StatusOr<JobRun> run = RunJob(SmallJob(1, 1, 1), kSteps);
    EXPECT_TRUE(run.ok()) << run.status();
    return new JobRun(*std::move(run));
  }();
  return *kRun;
}

struct Case {
  int64_t dp, tp, accumulate;
};

class Layouts : public ::testing::TestWithParam<Case> {};

TEST_P(Layouts, EqualsOneRank) {
  const Case l = GetParam();
  const absl::StatusOr<JobRun> run = RunJob(SmallJob(l.dp, l.tp, l.accumulate), kSteps);
  ASSERT_TRUE(run.ok()) << run.status();
  const JobRun& want = OneRank();
  ASSERT_EQ(run->steps.size(), want.steps.size());
  for (int s = 0; s < kSteps; ++s) {
    EXPECT_EQ(run->steps[s].tokens, want.steps[s].tokens);
    EXPECT_NEAR(run->steps[s].loss, want.steps[s].loss, kTolerance * want.steps[s].loss);
    EXPECT_NEAR(run->steps[s].grad_norm, want.steps[s].grad_norm, kTolerance * std::max(1.0, want.steps[s].grad_norm));
  }
  EXPECT_EQ(run->eval_tokens, want.eval_tokens);
  EXPECT_NEAR(run->eval_nats, want.eval_nats, kTolerance * want.eval_nats);
  ASSERT_EQ(run->parameters.size(), want.parameters.size());
  for (const auto& [name, values] : want.parameters) {
    EXPECT_LE(Difference(run->parameters.at(name), values), kTolerance) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(All, Layouts,
                         ::testing::Values(Case{1, 1, 2}, Case{1, 1, 8}, Case{2, 1, 1}, Case{4, 1, 1}, Case{4, 1, 2},
                                           Case{1, 2, 1}, Case{1, 4, 1}, Case{1, 4, 4}, Case{2, 2, 1}, Case{2, 2, 4},
                                           Case{2, 4, 2}),
                         [](const auto& info) {
                           return "dp" + std::to_string(info.param.dp) + "_tp" + std::to_string(info.param.tp) +
                                  "_acc" + std::to_string(info.param.accumulate);
                         });

// The criterion can fail: another seed of initial values is another run.
TEST(LayoutCriterion, TellsRunsApart) {
  JobConfig other = SmallJob(1, 1, 1);
  other.run.seed = 8;
  const absl::StatusOr<JobRun> run = RunJob(other, kSteps);
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_GT(Difference(run->parameters.at("blocks.0.wq"), OneRank().parameters.at("blocks.0.wq")), 1e-3);
}

TEST(Training, LossesAreSane) {
  const JobRun& run = OneRank();
  for (const StepReport& s : run.steps) {
    EXPECT_GT(s.loss, 1.0);
    EXPECT_LT(s.loss, 6.0);
    EXPECT_GT(s.grad_norm, 0.0);
  }
}

TEST(Training, TiedHeadAndOneKvHeadOnEveryLayout) {
  JobConfig base = SmallJob(1, 1, 1);
  base.model.tied = true;
  base.model.kv_heads = 1;
  const absl::StatusOr<JobRun> want = RunJob(base, kSteps);
  ASSERT_TRUE(want.ok()) << want.status();
  for (const auto& [dp, tp, acc] :
       {std::tuple(2, 1, 1), std::tuple(1, 2, 2), std::tuple(2, 2, 2), std::tuple(1, 4, 1)}) {
    JobConfig config = SmallJob(dp, tp, acc);
    config.model = base.model;
    const absl::StatusOr<JobRun> run = RunJob(config, kSteps);
    ASSERT_TRUE(run.ok()) << run.status();
    for (const auto& [name, values] : want->parameters) {
      EXPECT_LE(Difference(run->parameters.at(name), values), kTolerance) << name << " dp " << dp << " tp " << tp;
    }
  }
}

}  // namespace
}  // namespace strata
