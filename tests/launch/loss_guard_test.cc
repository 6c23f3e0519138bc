#include "launch/job/loss_guard.h"

#include <cmath>
#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/launch/small_run.h"

namespace strata {
namespace {

using ::testing::HasSubstr;

constexpr double kInf = std::numeric_limits<double>::infinity();
const double kNaN = std::nan("");

std::string Judged(LossGuard& guard, const StepReport& report) {
  const absl::StatusOr<std::string> text = guard.Judge(12, report, [] { return "samples 88 to 95"; });
  return text.ok() ? *text : "HALT " + std::string(text.status().message());
}

TEST(LossGuard, NamesWhatIsNotFiniteAndItsSamples) {
  LossGuard halt({}), skip({.nan = GuardAction::kSkip});
  const StepReport bad_loss{.loss = kNaN, .grad_norm = 1, .skipped = true};
  const StepReport bad_grad{.loss = 4, .grad_norm = kInf, .skipped = true};
  EXPECT_EQ(Judged(skip, bad_loss), "step 12: the loss is nan; samples 88 to 95; its update is not applied");
  EXPECT_EQ(Judged(skip, bad_grad), "step 12: the gradient norm is inf; samples 88 to 95; its update is not applied");
  EXPECT_THAT(Judged(halt, bad_loss), HasSubstr("HALT step 12: the loss is nan; samples 88 to 95"));
  EXPECT_EQ(Judged(halt, {.loss = 4, .grad_norm = 1}), "");
}

TEST(LossGuard, TenSkipsInARowHalt) {
  LossGuard guard({.nan = GuardAction::kSkip});
  for (int round = 0; round < 2; ++round) {
    for (int i = 0; i < 9; ++i) EXPECT_THAT(Judged(guard, {.loss = kNaN, .skipped = true}), HasSubstr("step 12"));
    EXPECT_EQ(Judged(guard, {.loss = 1, .grad_norm = 1}), "");
  }
  for (int i = 0; i < 9; ++i) Judged(guard, {.loss = kNaN, .skipped = true});
  EXPECT_THAT(Judged(guard, {.loss = kNaN, .skipped = true}), HasSubstr("HALT"));
}

TEST(LossGuard, SpikesAreToldByTheLastAppliedLosses) {
  LossGuard guard({.spike_z = 3, .spike = GuardAction::kSkip, .window = 4});
  for (const double loss : {100.0, 6.0, 4.0, 6.0}) {
    EXPECT_EQ(guard.MaxLoss(), kInf);
    Judged(guard, {.loss = loss, .grad_norm = 1});
  }
  Judged(guard, {.loss = 4, .grad_norm = 1});  // 100 falls out: mean 5, deviation 1
  EXPECT_DOUBLE_EQ(guard.MaxLoss(), 8);
  EXPECT_EQ(
      Judged(guard, {.loss = 15, .grad_norm = 1, .skipped = true}),
      "step 12: the loss 15.0000 is 10.0 standard deviations above the mean 5.0000 of the last 4 steps; samples 88 "
      "to 95; its update is not applied");
  EXPECT_DOUBLE_EQ(guard.MaxLoss(), 8);  // a skipped loss does not count
}

// Of a small run with a tight limit some step's loss is above the mean: seeds are fixed, so it is always the same.
const Overrides kTight = {"guard.spike_z=0.01", "guard.window=2", "optim.lr=0.0001"};

TEST(LossGuard, ASkippedStepIsLoggedAndTheRunGoesOn) {
  SmallRun run;
  Overrides overrides = kTight;
  overrides.push_back("guard.spike=skip");
  const absl::Status status = run.Train(overrides, "never");
  ASSERT_TRUE(status.ok()) << status;
  const std::vector<nlohmann::json> skipped = run.Metrics("skipped");
  ASSERT_FALSE(skipped.empty());
  const int64_t step = skipped[0]["step"];
  EXPECT_EQ(skipped[0]["first_sample"], (step - 1) * 8);
  EXPECT_EQ(skipped[0]["samples"], 8);
  EXPECT_THAT(run.output, HasSubstr(absl::StrFormat("step %d: the loss ", step)));
  EXPECT_EQ(run.Metrics("loss").size(), 6u);
}

TEST(LossGuard, OrHalts) {
  SmallRun run;
  const absl::Status status = run.Train(kTight, "never");
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()), HasSubstr("standard deviations above"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("no checkpoint is saved yet"));
}

}  // namespace
}  // namespace strata
