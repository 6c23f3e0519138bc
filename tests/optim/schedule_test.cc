#include "optim/schedule.h"

#include <gtest/gtest.h>

namespace strata {
namespace {

constexpr double kTolerance = 1e-15;

double At(const ScheduleConfig& schedule, int64_t step) {
  OptimConfig optim;
  optim.lr = 2;
  return LearningRate(optim, schedule, 4096, step);
}

class EverySchedule : public ::testing::TestWithParam<ScheduleType> {};
INSTANTIATE_TEST_SUITE_P(Types, EverySchedule,
                         ::testing::Values(ScheduleType::kCosine, ScheduleType::kLinear, ScheduleType::kWsd));

TEST_P(EverySchedule, RisesToThePeakAndEndsAtTheLowest) {
  const ScheduleConfig s{.type = GetParam(), .steps = 100, .warmup = 10, .decay = 20, .min_lr = 0.1};
  EXPECT_NEAR(At(s, 1), 0.2, kTolerance);
  EXPECT_NEAR(At(s, 5), 1, kTolerance);
  EXPECT_EQ(At(s, 10), 2);
  EXPECT_NEAR(At(s, 100), 0.2, kTolerance);
  EXPECT_EQ(At(s, 101), At(s, 100));
  for (int64_t t = 11; t <= 100; ++t) EXPECT_LE(At(s, t), At(s, t - 1)) << t;
}

TEST_P(EverySchedule, NeedsNoWarmup) {
  const ScheduleConfig s{.type = GetParam(), .steps = 4, .warmup = 0, .decay = 4, .min_lr = 0};
  EXPECT_GT(At(s, 1), 1);
  EXPECT_NEAR(At(s, 2), 1, kTolerance);
  EXPECT_NEAR(At(s, 4), 0, kTolerance);
}

TEST_P(EverySchedule, MayBeWarmupOnly) {
  const ScheduleConfig s{.type = GetParam(), .steps = 4, .warmup = 4, .decay = 0, .min_lr = 0};
  EXPECT_EQ(At(s, 1), 0.5);
  EXPECT_EQ(At(s, 4), 2);
  EXPECT_EQ(At(s, 5), 2);
}

TEST(Schedule, Shapes) {
  ScheduleConfig s{.type = ScheduleType::kCosine, .steps = 110, .warmup = 10, .decay = 0, .min_lr = 0.5};
  EXPECT_NEAR(At(s, 35), 1.5 + 0.5 * 0.70710678118654752, kTolerance);  // cos(pi / 4)
  EXPECT_NEAR(At(s, 60), 1.5, kTolerance);
  s.type = ScheduleType::kLinear;
  EXPECT_NEAR(At(s, 35), 1.75, kTolerance);
  EXPECT_NEAR(At(s, 60), 1.5, kTolerance);
  s.type = ScheduleType::kWsd;
  EXPECT_EQ(At(s, 110), 2);  // no decay: stable to the end
  s.decay = 40;
  EXPECT_EQ(At(s, 70), 2);
  EXPECT_NEAR(At(s, 90), 1.5, kTolerance);
}

// Goyal et al. 2017: k times the batch, k times the learning rate, reached gradually from the one that is not scaled.
TEST(LinearScaling, RisesFromTheBaseToTheScaledRate) {
  ScheduleConfig s{.type = ScheduleType::kLinear, .steps = 30, .warmup = 10, .min_lr = 0.5};
  s.scaling = LrScaling::kLinear;
  s.base_tokens = 512;  // k = 8
  EXPECT_EQ(At(s, 0), 2);
  EXPECT_NEAR(At(s, 1), 2 + 1.4, kTolerance);
  EXPECT_NEAR(At(s, 5), 2 + 7, kTolerance);
  EXPECT_EQ(At(s, 10), 16);
  EXPECT_NEAR(At(s, 20), 12, kTolerance);
  EXPECT_EQ(At(s, 30), 8);
  s.warmup = 0;
  EXPECT_NEAR(At(s, 15), 12, kTolerance);
  s.base_tokens = 4096;  // k = 1
  s.warmup = 10;
  for (int64_t t : {1, 5, 10}) EXPECT_EQ(At(s, t), 2) << t;
}

TEST(LinearScaling, OfASmallerBatchNeedsNoWarmup) {
  ScheduleConfig s{.steps = 30, .warmup = 10};
  s.scaling = LrScaling::kLinear;
  s.base_tokens = 8192;
  for (int64_t t : {1, 5, 10}) EXPECT_EQ(At(s, t), 1) << t;
}

}  // namespace
}  // namespace strata
