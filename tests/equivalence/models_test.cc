// float64: GPT-2 and BERT, with dropout, give on any layout what one rank gives: the masks are those of the samples.

#include <gtest/gtest.h>

#include <cmath>

#include "tests/testing/small_job.h"

namespace strata {
namespace {

using testing::JobRun;
using testing::RunJob;
using testing::SmallJobOf;

constexpr int kSteps = 4;
constexpr double kTolerance = 1e-10;  // of max|a-b| / max(max|b|, 1)

// Over losses, gradient norms and every parameter.
double Difference(const JobRun& a, const JobRun& b) {
  double worst = 0;
  for (size_t s = 0; s < b.steps.size(); ++s) {
    worst = std::max(
        {worst, std::abs(a.steps[s].loss - b.steps[s].loss), std::abs(a.steps[s].grad_norm - b.steps[s].grad_norm)});
  }
  worst = std::max(worst, std::abs(a.eval_nats - b.eval_nats) / std::max(1.0, b.eval_nats));
  for (const auto& [name, values] : b.parameters) {
    double diff = 0, scale = 1;
    for (size_t i = 0; i < values.size(); ++i) {
      diff = std::max(diff, std::abs(a.parameters.at(name)[i] - values[i]));
      scale = std::max(scale, std::abs(values[i]));
    }
    worst = std::max(worst, diff / scale);
  }
  return worst;
}

class ModelLayouts : public ::testing::TestWithParam<ModelArch> {};
INSTANTIATE_TEST_SUITE_P(Archs, ModelLayouts, ::testing::Values(ModelArch::kGpt2, ModelArch::kBert),
                         [](const auto& info) { return std::string(kModelArchNames[static_cast<int>(info.param)]); });

TEST_P(ModelLayouts, EqualOneRank) {
  const absl::StatusOr<JobRun> want = RunJob(SmallJobOf(GetParam(), 1, 1, 1), kSteps);
  ASSERT_TRUE(want.ok()) << want.status();
  for (const auto& [dp, tp, accumulate] : {std::tuple(1, 1, 2), std::tuple(2, 1, 1), std::tuple(1, 2, 1),
                                           std::tuple(1, 4, 1), std::tuple(2, 2, 1), std::tuple(2, 2, 2)}) {
    const absl::StatusOr<JobRun> run = RunJob(SmallJobOf(GetParam(), dp, tp, accumulate), kSteps);
    ASSERT_TRUE(run.ok()) << run.status();
    ASSERT_EQ(run->steps.back().tokens, want->steps.back().tokens);
    EXPECT_LE(Difference(*run, *want), kTolerance) << "dp " << dp << " tp " << tp << " accumulate " << accumulate;
  }
}

// Biases of q, k, v; norms of heads, whose gradients are sums over tp; heads that are not dim / heads wide; scaled rotary
// frequencies. With tp 4 and 2 kv heads, each of them lies on two ranks.
class FamilyLayouts : public ::testing::TestWithParam<ModelArch> {};
INSTANTIATE_TEST_SUITE_P(Archs, FamilyLayouts,
                         ::testing::Values(ModelArch::kLlama, ModelArch::kQwen2, ModelArch::kQwen3),
                         [](const auto& info) { return std::string(kModelArchNames[static_cast<int>(info.param)]); });

TEST_P(FamilyLayouts, EqualOneRank) {
  const auto config = [&](int64_t dp, int64_t tp, int64_t accumulate) {
    JobConfig c = SmallJobOf(GetParam(), dp, tp, accumulate);
    c.model.kv_heads = 2;
    c.model.head_width = 6;
    c.model.tied = true;
    c.model.rope_scaling = RopeScalingKind::kLlama3;
    c.model.rope_theta = 10;
    c.model.rope_original = 16;
    return c;
  };
  const absl::StatusOr<JobRun> want = RunJob(config(1, 1, 1), kSteps);
  ASSERT_TRUE(want.ok()) << want.status();
  for (const auto& [dp, tp, accumulate] :
       {std::tuple(2, 1, 2), std::tuple(1, 2, 1), std::tuple(1, 4, 1), std::tuple(2, 2, 1)}) {
    const absl::StatusOr<JobRun> run = RunJob(config(dp, tp, accumulate), kSteps);
    ASSERT_TRUE(run.ok()) << run.status();
    EXPECT_LE(Difference(*run, *want), kTolerance) << "dp " << dp << " tp " << tp << " accumulate " << accumulate;
  }
}

TEST_P(ModelLayouts, SgdEqualsOneRank) {
  const auto config = [&](int64_t dp, int64_t tp, int64_t accumulate) {
    JobConfig c = SmallJobOf(GetParam(), dp, tp, accumulate);
    c.optim.type = OptimizerType::kSgd;
    c.schedule.scaling = LrScaling::kLinear;
    c.schedule.base_tokens = 16;  // a quarter of the batch
    return c;
  };
  const absl::StatusOr<JobRun> want = RunJob(config(1, 1, 1), kSteps), run = RunJob(config(2, 2, 2), kSteps);
  ASSERT_TRUE(want.ok() && run.ok()) << want.status() << run.status();
  EXPECT_EQ(want->steps.back().lr, run->steps.back().lr);
  EXPECT_LE(Difference(*run, *want), kTolerance);
}

TEST_P(ModelLayouts, DropoutChangesTrainingButNotEvaluation) {
  JobConfig config = SmallJobOf(GetParam(), 1, 1, 1);
  const absl::StatusOr<JobRun> with = RunJob(config, 1), untrained = RunJob(config, 0);
  config.model.dropout = 0;
  const absl::StatusOr<JobRun> without = RunJob(config, 1), plain = RunJob(config, 0);
  ASSERT_TRUE(with.ok() && without.ok() && untrained.ok() && plain.ok()) << with.status() << without.status();
  EXPECT_GT(std::abs(with->steps[0].loss - without->steps[0].loss), 1e-4);
  EXPECT_EQ(untrained->eval_nats, plain->eval_nats);
}

class PackedLayouts : public ::testing::TestWithParam<ModelArch> {};
INSTANTIATE_TEST_SUITE_P(Archs, PackedLayouts, ::testing::Values(ModelArch::kLlama, ModelArch::kGpt2),
                         [](const auto& info) { return std::string(kModelArchNames[static_cast<int>(info.param)]); });

TEST_P(PackedLayouts, EqualOneRank) {
  const auto config = [&](int64_t dp, int64_t tp, int64_t accumulate) {
    JobConfig c = SmallJobOf(GetParam(), dp, tp, accumulate);
    c.data.packing = Packing::kIsolate;
    return c;
  };
  const absl::StatusOr<JobRun> want = RunJob(config(1, 1, 1), kSteps);
  ASSERT_TRUE(want.ok()) << want.status();
  for (const auto& [dp, tp, accumulate] : {std::tuple(2, 1, 2), std::tuple(1, 4, 1), std::tuple(2, 2, 1)}) {
    const absl::StatusOr<JobRun> run = RunJob(config(dp, tp, accumulate), kSteps);
    ASSERT_TRUE(run.ok()) << run.status();
    EXPECT_LE(Difference(*run, *want), kTolerance) << "dp " << dp << " tp " << tp << " accumulate " << accumulate;
  }
  JobConfig concat = config(1, 1, 1);
  concat.data.packing = Packing::kConcat;
  const absl::StatusOr<JobRun> other = RunJob(concat, kSteps);
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_GT(Difference(*other, *want), 1e-4);
}

}  // namespace
}  // namespace strata
