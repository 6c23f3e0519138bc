// ZeRO: whatever is sharded over the data-parallel ranks, a run is the run of one rank.

#include <gtest/gtest.h>

#include <cmath>

#include "tests/testing/small_job.h"

namespace strata {
namespace {

using testing::JobRun;
using testing::RunJob;
using testing::SmallJob;
using testing::SmallJobOf;

constexpr int kSteps = 5;
constexpr double kTolerance = 1e-10;  // of max|a-b| / max(max|b|, 1)

double Difference(const std::vector<double>& a, const std::vector<double>& b) {
  double diff = a.size() == b.size() ? 0 : 1e9, scale = 1;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    diff = std::max(diff, std::abs(a[i] - b[i]));
    scale = std::max(scale, std::abs(b[i]));
  }
  return diff / scale;
}

void ExpectEqualRuns(const JobRun& run, const JobRun& want, double tolerance) {
  ASSERT_EQ(run.steps.size(), want.steps.size());
  for (size_t s = 0; s < want.steps.size(); ++s) {
    EXPECT_NEAR(run.steps[s].loss, want.steps[s].loss, tolerance * want.steps[s].loss) << s;
    EXPECT_NEAR(run.steps[s].grad_norm, want.steps[s].grad_norm, tolerance * std::max(1.0, want.steps[s].grad_norm));
  }
  EXPECT_NEAR(run.eval_nats, want.eval_nats, tolerance * want.eval_nats);
  ASSERT_EQ(run.parameters.size(), want.parameters.size());
  for (const auto& [name, values] : want.parameters) {
    EXPECT_LE(Difference(run.parameters.at(name), values), tolerance) << name;
  }
}

struct Case {
  std::string name;
  int64_t dp = 2, tp = 1, accumulate = 1;
  OptimizerType optimizer = OptimizerType::kAdamW;
  bool tied = false;
  ModelArch arch = ModelArch::kLlama;
  int64_t dim = 16;
};

JobConfig ConfigOf(const Case& c, int64_t dp, int64_t tp, int64_t accumulate) {
  JobConfig config = SmallJobOf(c.arch, dp, tp, accumulate);
  if (c.arch == ModelArch::kLlama) config.model = SmallJob(1, 1, 1).model;
  config.model.tied = c.tied;
  config.model.dim = c.dim;
  config.optim.type = c.optimizer;
  config.optim.clip = 0.5;  // below every norm
  return config;
}

absl::StatusOr<JobRun> RunStage(JobConfig config, int64_t stage) {
  config.parallel.zero.stage = stage;
  return RunJob(config, kSteps);
}

class Zero : public ::testing::TestWithParam<Case> {};

TEST_P(Zero, EveryStageEqualsOneRank) {
  const Case c = GetParam();
  const absl::StatusOr<JobRun> want = RunStage(ConfigOf(c, 1, 1, 1), 0);
  ASSERT_TRUE(want.ok()) << want.status();
  for (const StepReport& s : want->steps) EXPECT_GT(s.grad_norm, 0.5);
  for (int64_t stage = 1; stage <= 3; ++stage) {
    const absl::StatusOr<JobRun> run = RunStage(ConfigOf(c, c.dp, c.tp, c.accumulate), stage);
    ASSERT_TRUE(run.ok()) << "stage " << stage << ": " << run.status();
    SCOPED_TRACE(stage);
    ExpectEqualRuns(*run, *want, kTolerance);
  }
}

INSTANTIATE_TEST_SUITE_P(All, Zero,
                         ::testing::Values(Case{"dp2"}, Case{"dp4_accumulate2", 4, 1, 2}, Case{"dp8", 8},
                                           Case{"dp2_tp2", 2, 2, 2}, Case{"dp2_tp4_factored", 2, 4, 1},
                                           Case{"sgd", 2, 2, 2, OptimizerType::kSgd},
                                           Case{"tied", 4, 1, 2, OptimizerType::kAdamW, true},
                                           Case{"tied_tp2", 2, 2, 1, OptimizerType::kAdamW, true},
                                           Case{"gpt2", 2, 2, 2, OptimizerType::kAdamW, false, ModelArch::kGpt2},
                                           Case{"bert", 4, 1, 1, OptimizerType::kSgd, false, ModelArch::kBert},
                                           Case{"wider", 4, 1, 2, OptimizerType::kAdamW, false, ModelArch::kLlama, 64}),
                         [](const auto& info) { return info.param.name; });

// Collectives add in the same order whatever is sharded, so without clipping, for which the norm is added up in another, the
// bits are those of plain data parallelism: the bf16 weights too, of which a rank updates a shard of the float32 master. Stages
// 2 and 3 add ranks before micro-batches.
TEST(ZeroPrecision, BitsAreThoseOfDataParallelism) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const auto& [dp, tp, accumulate] : {std::tuple(2, 1, 2), std::tuple(4, 1, 1), std::tuple(2, 2, 1)}) {
      JobConfig config = SmallJob(dp, tp, accumulate);
      config.precision.compute = dtype;
      config.optim.clip = 0;
      const absl::StatusOr<JobRun> want = RunStage(config, 0);
      ASSERT_TRUE(want.ok()) << want.status();
      for (int64_t stage = 1; stage <= (accumulate > 1 ? 1 : 3); ++stage) {
        const absl::StatusOr<JobRun> run = RunStage(config, stage);
        ASSERT_TRUE(run.ok()) << run.status();
        EXPECT_TRUE(run->parameters == want->parameters) << Name(dtype) << " dp " << dp << " tp " << tp << " " << stage;
        EXPECT_EQ(run->eval_nats, want->eval_nats);
      }
    }
  }
}

struct Hierarchy {
  std::string name;
  int64_t stage = 3, dp = 4, tp = 1, inner = 2;
  ZeroScope scope = ZeroScope::kAll;
  bool secondary = false;
};

class ZeroHierarchy : public ::testing::TestWithParam<Hierarchy> {};

TEST_P(ZeroHierarchy, EqualsOneRank) {
  const Hierarchy h = GetParam();
  const absl::StatusOr<JobRun> want = RunStage(ConfigOf({}, 1, 1, 1), 0);
  JobConfig config = ConfigOf({}, h.dp, h.tp, 8 / h.dp);
  config.parallel.zero = {.stage = h.stage, .inner = h.inner, .scope = h.scope, .secondary = h.secondary};
  const absl::StatusOr<JobRun> run = RunJob(config, kSteps);
  ASSERT_TRUE(want.ok() && run.ok()) << run.status();
  ExpectEqualRuns(*run, *want, kTolerance);
}

INSTANTIATE_TEST_SUITE_P(All, ZeroHierarchy,
                         ::testing::Values(Hierarchy{"all_1", 1}, Hierarchy{"all_3"},
                                           Hierarchy{"inner_1", 1, 4, 1, 2, ZeroScope::kInner},
                                           Hierarchy{"inner_2", 2, 4, 2, 2, ZeroScope::kInner},
                                           Hierarchy{"inner_3", 3, 8, 1, 4, ZeroScope::kInner},
                                           Hierarchy{"states_1", 1, 4, 1, 2, ZeroScope::kStates},
                                           Hierarchy{"states_2", 2, 4, 2, 2, ZeroScope::kStates},
                                           Hierarchy{"states_3", 3, 8, 1, 4, ZeroScope::kStates},
                                           Hierarchy{"secondary", 3, 4, 1, 2, ZeroScope::kAll, true},
                                           Hierarchy{"secondary_tp2", 3, 4, 2, 2, ZeroScope::kAll, true},
                                           Hierarchy{"secondary_dp8", 3, 8, 1, 2, ZeroScope::kAll, true},
                                           Hierarchy{"one_node", 3, 4, 1, 4, ZeroScope::kInner},
                                           Hierarchy{"a_rank_a_node", 2, 4, 1, 1, ZeroScope::kInner}),
                         [](const auto& info) { return info.param.name; });

// A reduce-scatter as an all-to-all and a sum.
TEST(ZeroAllToAll, EqualsOneRank) {
  const absl::StatusOr<JobRun> want = RunStage(ConfigOf({}, 1, 1, 1), 0);
  ASSERT_TRUE(want.ok()) << want.status();
  struct Row {
    int64_t stage, dp, tp, accumulate, inner;
    ZeroScope scope;
  };
  for (const Row& r :
       {Row{1, 4, 1, 2, 0, ZeroScope::kAll}, Row{2, 2, 2, 2, 0, ZeroScope::kAll}, Row{3, 8, 1, 1, 0, ZeroScope::kAll},
        Row{2, 4, 1, 2, 2, ZeroScope::kInner}, Row{3, 8, 1, 1, 4, ZeroScope::kStates}}) {
    JobConfig config = ConfigOf({}, r.dp, r.tp, r.accumulate);
    config.parallel.zero = {.stage = r.stage, .inner = r.inner, .scope = r.scope, .scatter_by = ScatterBy::kAllToAll};
    const absl::StatusOr<JobRun> run = RunJob(config, kSteps);
    ASSERT_TRUE(run.ok()) << run.status();
    SCOPED_TRACE(r.stage);
    ExpectEqualRuns(*run, *want, kTolerance);
  }
}

// Both add in the order of the ranks, in float32.
TEST(ZeroAllToAll, HasTheBitsOfTheReduceScatterOfHostRanks) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (int64_t stage = 1; stage <= 3; ++stage) {
      JobConfig config = ConfigOf({}, 4, 1, 2);
      config.precision.compute = dtype;
      config.parallel.zero = {.stage = stage};
      const absl::StatusOr<JobRun> want = RunJob(config, kSteps);
      config.parallel.zero.scatter_by = ScatterBy::kAllToAll;
      const absl::StatusOr<JobRun> run = RunJob(config, kSteps);
      ASSERT_TRUE(want.ok() && run.ok()) << want.status() << run.status();
      EXPECT_TRUE(run->parameters == want->parameters) << Name(dtype) << " stage " << stage;
    }
  }
}

// Each rank's gradient is rounded once, to 8 bits.
TEST(ZeroAllToAll, InBf16StaysNearExactAndIsDeterministic) {
  for (int64_t stage = 1; stage <= 3; ++stage) {
    JobConfig config = ConfigOf({}, 4, 1, 2);
    config.precision.compute = DType::kF32;
    config.parallel.zero = {.stage = stage, .scatter_by = ScatterBy::kAllToAll};
    const absl::StatusOr<JobRun> exact = RunJob(config, kSteps);
    config.parallel.zero.gradients = Wire::kBf16;
    const absl::StatusOr<JobRun> run = RunJob(config, kSteps), again = RunJob(config, kSteps);
    ASSERT_TRUE(exact.ok() && run.ok() && again.ok()) << run.status();
    EXPECT_TRUE(run->parameters == again->parameters);
    EXPECT_TRUE(run->parameters != exact->parameters);
    for (int s = 0; s < kSteps; ++s) {
      EXPECT_NEAR(run->steps[s].loss, exact->steps[s].loss, 1e-3 * exact->steps[s].loss) << s;
      EXPECT_NEAR(run->steps[s].grad_norm, exact->steps[s].grad_norm, 4e-3 * exact->steps[s].grad_norm) << s;
    }
  }
}

// Quantised collectives change what is summed, within their bounds, and the same way every time.
TEST(ZeroQuantised, StaysNearExactAndIsDeterministic) {
  const auto config = [](int64_t stage, Wire weights, Wire gradients, int64_t inner) {
    JobConfig c = ConfigOf({}, 4, 1, 2);
    c.model.dim = 64;
    c.parallel.zero = {.stage = stage, .inner = inner, .weights = weights, .gradients = gradients};
    return c;
  };
  const absl::StatusOr<JobRun> exact = RunJob(config(3, Wire::kExact, Wire::kExact, 0), kSteps);
  ASSERT_TRUE(exact.ok()) << exact.status();
  struct Row {
    int64_t stage, inner;
    Wire weights, gradients;
    double tolerance;  // of the loss, relative
  };
  for (const Row& r : {Row{3, 0, Wire::kInt8, Wire::kExact, 5e-3}, Row{1, 0, Wire::kExact, Wire::kInt8, 2e-3},
                       Row{2, 2, Wire::kExact, Wire::kInt8, 2e-3}, Row{3, 2, Wire::kInt8, Wire::kInt8, 5e-3},
                       Row{3, 2, Wire::kInt8, Wire::kInt4, 2e-2}}) {
    const JobConfig c = config(r.stage, r.weights, r.gradients, r.inner);
    const absl::StatusOr<JobRun> run = RunJob(c, kSteps), again = RunJob(c, kSteps);
    ASSERT_TRUE(run.ok() && again.ok()) << run.status();
    EXPECT_TRUE(run->parameters == again->parameters);
    EXPECT_TRUE(run->parameters != exact->parameters);
    for (int s = 0; s < kSteps; ++s) {
      EXPECT_NEAR(run->steps[s].loss, exact->steps[s].loss, r.tolerance * exact->steps[s].loss) << s;
      EXPECT_NEAR(run->steps[s].grad_norm, exact->steps[s].grad_norm, 10 * r.tolerance * exact->steps[s].grad_norm);
    }
  }
}

TEST(ZeroLayout, OneDataParallelRankShardsNothing) {
  const absl::StatusOr<JobRun> plain = RunStage(SmallJob(1, 2, 2), 0), sharded = RunStage(SmallJob(1, 2, 2), 3);
  ASSERT_TRUE(plain.ok() && sharded.ok()) << sharded.status();
  EXPECT_EQ(plain->parameters, sharded->parameters);
  EXPECT_EQ(plain->calls, sharded->calls);
}

}  // namespace
}  // namespace strata
