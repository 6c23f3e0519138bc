// precision.gradients = "bf16": weight gradients kept in bf16. What becomes of memory, of steps and of training.

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "launch/job/compile.h"
#include "tests/testing/small_job.h"

namespace strata {
namespace {

using testing::JobRun;
using testing::RunJob;
using testing::SmallJobOf;

JobConfig Config(GradientFormat gradients, ModelArch arch = ModelArch::kLlama, int64_t dp = 1, int64_t tp = 1) {
  JobConfig c = SmallJobOf(arch, dp, tp, 1);
  c.model.dropout = 0;
  c.precision = {.compute = DType::kBF16, .gradients = gradients};
  return c;
}

absl::StatusOr<std::vector<Plan>> PlansOf(const JobConfig& config) {
  const KernelTable kernels = CpuKernels();
  const absl::StatusOr<Job> job = CompileTraining(config, kernels);
  if (!job.ok()) return job.status();
  return PlanRanks(*job, kernels);
}

int64_t RegionBytes(const Plan& plan, std::string_view name) {
  int64_t bytes = 0;
  for (const Region& r : plan.regions) bytes += r.name == name ? r.bytes : 0;
  return bytes;
}

// Elements of the flat gradients of a dtype, with their padding.
int64_t Elements(const Plan& plan, DType dtype) {
  int64_t n = 0;
  for (const PlannedState& s : plan.states) {
    if (s.role == Role::kGrad && !s.is_view && s.spec.dtype == dtype) n += s.box.shape.elements();
  }
  return n;
}

size_t NumSteps(const Plan& plan) {
  size_t n = 0;
  for (const Segment& s : plan.programs[0].segments) n += s.steps.size();
  return n;
}

// Of a bucket more: a reduction or two, a gather, an update, a square sum and its add.
constexpr size_t kStepsOfABucket = 8;
constexpr ModelArch kArchs[] = {ModelArch::kLlama, ModelArch::kGpt2, ModelArch::kBert, ModelArch::kQwen2,
                                ModelArch::kQwen3};

TEST(GradientsInBf16, TakeTwoBytesAParameterLessAndNoMoreSteps) {
  for (const ModelArch arch : kArchs) {
    for (int64_t stage = 0; stage <= 3; ++stage) {
      SCOPED_TRACE(std::string(kModelArchNames[static_cast<size_t>(arch)]) + " zero " + std::to_string(stage));
      JobConfig exact = Config(GradientFormat::kFloat32, arch, 2), rounded = Config(GradientFormat::kBf16, arch, 2);
      exact.parallel.zero.stage = rounded.parallel.zero.stage = stage;
      const auto want = PlansOf(exact), got = PlansOf(rounded);
      ASSERT_TRUE(want.ok() && got.ok()) << want.status() << got.status();
      const bool tied = arch == ModelArch::kGpt2 || arch == ModelArch::kBert;
      for (size_t rank = 0; rank < got->size(); ++rank) {
        const Plan &a = (*want)[rank], &b = (*got)[rank];
        const int64_t all = Elements(a, DType::kF32), n = Elements(b, DType::kBF16), sums = Elements(b, DType::kF32);
        EXPECT_EQ(Elements(a, DType::kBF16), 0);
        EXPECT_EQ(RegionBytes(a, "gradients"), 4 * all);
        EXPECT_EQ(RegionBytes(b, "gradients"), 2 * n + 4 * sums);
        EXPECT_LE(NumSteps(b), NumSteps(a) + (tied ? kStepsOfABucket : 0));
        if (tied) continue;
        EXPECT_EQ(sums, 0);
        EXPECT_EQ(n, all);
        for (const char* region : {"parameters", "master weights", "moments"}) {
          EXPECT_EQ(RegionBytes(a, region), RegionBytes(b, region)) << region;
        }
      }
    }
  }
}

// A gradient that several products add up to is not rounded on the way: it stays float32, alone in its bucket.
TEST(GradientsInBf16, SumsOfSeveralProductsStayFloat32) {
  JobConfig tied = Config(GradientFormat::kBf16, ModelArch::kLlama), chunks = tied;
  tied.model.tied = true;
  chunks.model.seq = 256;  // of which the head makes two chunks
  chunks.batch = {.tokens = 8 * 256, .micro = 8, .accumulate = 1};
  for (const auto& [config, name, elements] :
       {std::tuple(tied, "embed.weight", 32 * 16), std::tuple(chunks, "head.weight", 32 * 16)}) {
    const auto plans = PlansOf(config);
    ASSERT_TRUE(plans.ok()) << plans.status();
    for (const PlannedState& s : plans->at(0).states) {
      if (s.role != Role::kGrad || !s.is_view) continue;
      EXPECT_EQ(s.spec.dtype, s.name == std::string("grad.") + name ? DType::kF32 : DType::kBF16) << s.name;
    }
    EXPECT_EQ(Elements(plans->at(0), DType::kF32), elements);
    EXPECT_GT(Elements(plans->at(0), DType::kBF16), 0);
  }
}

// A token's successor is a function of it, so that there is something to learn.
class Successors final : public RowSource {
 public:
  absl::Status Row(int64_t index, const RowSpans& row) const override {
    int64_t token = (index * 7) % 32;
    for (size_t i = 0; i < row.tokens.size(); ++i) {
      row.tokens[i] = static_cast<int32_t>(token);
      token = (token * 5 + 3) % 32;
      row.targets[i] = static_cast<int32_t>(token);
      row.weights[i] = 1;
      row.document_starts[i] = 0;
    }
    return absl::OkStatus();
  }
};

absl::StatusOr<JobRun> Train(const JobConfig& config, int num_steps) {
  std::vector<int> steps(num_steps);
  std::iota(steps.begin(), steps.end(), 1);
  return RunJob(config, steps, Successors(), std::numeric_limits<double>::infinity());
}

TEST(GradientsInBf16, LearnAsFloat32OnesDo) {
  constexpr int kSteps = 50;
  for (const ModelArch arch : {ModelArch::kLlama, ModelArch::kGpt2}) {  // GPT-2's embedding is its head
    for (const OptimizerType type : {OptimizerType::kAdamW, OptimizerType::kSgd}) {
      SCOPED_TRACE(kModelArchNames[static_cast<size_t>(arch)]);
      JobConfig exact = Config(GradientFormat::kFloat32, arch);
      exact.optim.type = type;
      exact.optim.lr = type == OptimizerType::kSgd ? 0.3 : 1e-2;
      exact.schedule.steps = kSteps;
      JobConfig rounded = exact;
      rounded.precision.gradients = GradientFormat::kBf16;
      const auto want = Train(exact, kSteps), got = Train(rounded, kSteps);
      ASSERT_TRUE(want.ok() && got.ok()) << want.status() << got.status();
      for (int s = 0; s < kSteps; ++s) EXPECT_NEAR(got->steps[s].loss, want->steps[s].loss, 0.02) << "step " << s + 1;
      EXPECT_LT(got->steps.back().loss, got->steps.front().loss - 1);
      EXPECT_NE(got->parameters, want->parameters);  // it is bf16 that ran
    }
  }
}

struct Layout {
  const char* name;
  int64_t dp = 1, tp = 1;
  bool sequence = false, tied = false;
  ZeroConfig zero;
};

TEST(GradientsInBf16, AnyLayoutStaysNearOneRank) {
  constexpr int kSteps = 8;
  const Layout layouts[] = {
      {"dp", 2},
      {"tp", 1, 2},
      {"tp + sp", 1, 2, true},
      {"zero 1", 2, 1, false, false, {.stage = 1}},
      {"zero 2", 4, 1, false, false, {.stage = 2}},
      {"zero 3", 2, 2, true, false, {.stage = 3}},
      {"tied", 2, 1, false, true, {.stage = 2}},
      {"all-to-all 1", 4, 1, false, false, {.stage = 1, .scatter_by = ScatterBy::kAllToAll}},
      {"all-to-all 2", 2, 1, false, false, {.stage = 2, .scatter_by = ScatterBy::kAllToAll}},
      {"as sent", 2, 1, false, false, {.stage = 3, .gradients = Wire::kBf16, .scatter_by = ScatterBy::kAllToAll}},
      {"MiCS", 4, 1, false, false, {.stage = 3, .inner = 2, .scope = ZeroScope::kInner}},
      {"quantised", 4, 1, false, false, {.stage = 2, .inner = 2, .gradients = Wire::kInt8}},
  };
  for (const bool tied : {false, true}) {
    JobConfig one = Config(GradientFormat::kBf16);
    one.model.tied = tied;
    const auto want = Train(one, kSteps);
    ASSERT_TRUE(want.ok()) << want.status();
    for (const Layout& l : layouts) {
      if (l.tied != tied) continue;
      SCOPED_TRACE(l.name);
      JobConfig config = Config(GradientFormat::kBf16, ModelArch::kLlama, l.dp, l.tp);
      config.model.tied = tied;
      config.parallel.sequence_parallel = l.sequence;
      config.parallel.zero = l.zero;
      const auto run = Train(config, kSteps);
      ASSERT_TRUE(run.ok()) << run.status();
      for (int s = 0; s < kSteps; ++s) {
        EXPECT_NEAR(run->steps[s].loss, want->steps[s].loss, 3e-2) << "step " << s + 1;
        EXPECT_NEAR(run->steps[s].grad_norm / want->steps[s].grad_norm, 1, 6e-2) << "step " << s + 1;
      }
    }
  }
}

// Ranks' gradients are added in one order, and rounded alike, whatever is sharded: without clipping these are the same bits.
TEST(GradientsInBf16, ShardedOnesAreTheBitsOfWholeOnes) {
  std::map<std::string, std::vector<double>> want;
  for (int64_t stage = 0; stage <= 3; ++stage) {
    JobConfig config = Config(GradientFormat::kBf16, ModelArch::kLlama, 4);
    config.optim.clip = 0;
    config.parallel.zero.stage = stage;
    const auto run = RunJob(config, 5);
    ASSERT_TRUE(run.ok()) << run.status();
    if (stage == 0) want = run->parameters;
    EXPECT_TRUE(run->parameters == want) << "stage " << stage;
  }
}

// Half the bytes are sent.
TEST(GradientsInBf16, AreReducedInHalfTheBytes) {
  const auto sent = [](GradientFormat gradients, int64_t stage) {
    JobConfig config = Config(gradients, ModelArch::kLlama, 2);
    config.parallel.zero.stage = stage;
    const auto run = RunJob(config, 1);
    EXPECT_TRUE(run.ok()) << run.status();
    return run.ok() ? run->bytes : std::map<std::string, double>{};
  };
  for (const int64_t stage : {1, 2}) {
    auto exact = sent(GradientFormat::kFloat32, stage), rounded = sent(GradientFormat::kBf16, stage);
    EXPECT_GT(rounded["dp reduce-scatter"], 0);
    EXPECT_EQ(2 * rounded["dp reduce-scatter"], exact["dp reduce-scatter"]);
    EXPECT_EQ(rounded["dp all-gather"], exact["dp all-gather"]);
  }
}

}  // namespace
}  // namespace strata
