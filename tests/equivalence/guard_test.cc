// A step that is held back changes nothing, to the bit and on every rank: as if it had not been taken.

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/testing/small_job.h"

namespace strata {
namespace {

using testing::JobRun;
using testing::RunJob;
using testing::SmallJob;
using testing::TableRows;

// The usual rows, but for one of step 3 (rows 16 to 23), which one data-parallel rank alone sees.
class SpoiledRows final : public RowSource {
 public:
  explicit SpoiledRows(float weight) : weight_(weight) {}
  absl::Status Row(int64_t index, const RowSpans& row) const override {
    absl::Status status = rows_.Row(index, row);
    if (index == 22) row.weights[2] = weight_;
    return status;
  }

 private:
  const TableRows rows_{32, 3};
  const float weight_;
};

struct Case {
  int64_t dp, tp;
  DType dtype;
  OptimizerType optimizer = OptimizerType::kAdamW;
  GradientFormat gradients = GradientFormat::kFloat32;
};

class Guarded : public ::testing::TestWithParam<Case> {
 protected:
  void Check(float weight, double max_loss) {
    const bool rounded = GetParam().gradients == GradientFormat::kBf16;
    JobConfig config = SmallJob(GetParam().dp, GetParam().tp, rounded ? 1 : 2);
    config.precision = {.compute = GetParam().dtype, .gradients = GetParam().gradients};
    config.optim.type = GetParam().optimizer;
    const int all[] = {1, 2, 3, 4}, without[] = {1, 2, 4};
    const absl::StatusOr<JobRun> skipped = RunJob(config, all, SpoiledRows(weight), max_loss);
    ASSERT_TRUE(skipped.ok()) << skipped.status();  // and replicas are alike
    ASSERT_EQ(skipped->steps.size(), 4u);
    for (int i = 0; i < 4; ++i) EXPECT_EQ(skipped->steps[i].skipped, i == 2) << skipped->steps[i].loss;
    const absl::StatusOr<JobRun> want = RunJob(config, without, SpoiledRows(weight), max_loss);
    ASSERT_TRUE(want.ok()) << want.status();
    EXPECT_EQ(skipped->parameters, want->parameters);
    EXPECT_EQ(skipped->eval_nats, want->eval_nats);
    EXPECT_TRUE(std::isfinite(want->eval_nats));
  }
};

TEST_P(Guarded, NotFinite) { Check(std::numeric_limits<float>::quiet_NaN(), 1e9); }
TEST_P(Guarded, AboveTheLimit) { Check(1000, 10); }

class GuardedNorm : public Guarded {};

// The loss is finite, the gradients are, and their squares are not.
TEST_P(GuardedNorm, AboveFloat32) { Check(1e30f, std::numeric_limits<double>::infinity()); }

INSTANTIATE_TEST_SUITE_P(All, GuardedNorm,
                         ::testing::Values(Case{2, 1, DType::kF32}, Case{1, 1, DType::kBF16},
                                           Case{2, 1, DType::kBF16, OptimizerType::kAdamW, GradientFormat::kBf16}));

INSTANTIATE_TEST_SUITE_P(All, Guarded,
                         ::testing::Values(Case{1, 1, DType::kF64}, Case{2, 1, DType::kF64}, Case{1, 2, DType::kF32},
                                           Case{2, 2, DType::kBF16}, Case{2, 2, DType::kF64, OptimizerType::kSgd},
                                           Case{1, 2, DType::kBF16, OptimizerType::kSgd},
                                           Case{2, 1, DType::kBF16, OptimizerType::kAdamW, GradientFormat::kBf16}),
                         [](const auto& info) {
                           const bool sgd = info.param.optimizer == OptimizerType::kSgd;
                           const bool rounded = info.param.gradients == GradientFormat::kBf16;
                           return std::string(rounded ? "rounded_" : "") + (sgd ? "sgd_" : "adamw_") + "dp" +
                                  std::to_string(info.param.dp) + "_tp" + std::to_string(info.param.tp);
                         });

}  // namespace
}  // namespace strata
