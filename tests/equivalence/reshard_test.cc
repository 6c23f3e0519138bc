// A run saved in one layout goes on in another: the same tensors, the same losses; in the same layout the same bits.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <mutex>
#include <random>

#include "absl/strings/str_format.h"
#include "checkpoint/diff.h"
#include "core/base/status.h"
#include "core/exec/cpu_device.h"
#include "launch/data/objective_rows.h"
#include "launch/job/checkpoint_io.h"
#include "launch/job/rank_runner.h"
#include "launch/job/saver.h"
#include "parallel/comm/thread_world.h"
#include "tests/testing/fault_env.h"
#include "tests/testing/layout_table.h"
#include "tests/testing/small_job.h"
#include "tests/testing/temp_dir.h"

namespace strata {
namespace {

using testing::SmallJobOf;

constexpr double kTolerance = 1e-10;
constexpr int kSaved = 2, kSteps = 4;  // saved after these steps

struct Leg {
  std::vector<double> losses;
  std::string saved, last;  // checkpoints of steps kSaved and kSteps
};

// Trains from a checkpoint of step kSaved, or from step 1 where there is none, to kSteps. Saves in `out`.
absl::StatusOr<Leg> RunLeg(JobConfig config, const std::string& load, const std::string& out) {
  testing::FaultEnv env;
  const KernelTable kernels = CpuKernels();
  config.run.out = out;
  ASSIGN_OR_RETURN(const Job job, CompileTraining(config, kernels));
  ASSIGN_OR_RETURN(const std::vector<Plan> plans, PlanRanks(job, kernels));
  const testing::TableRows table(config.model.vocab, 3);
  const ObjectiveRows rows(table, config.model, config.run.seed);
  Leg leg;
  RETURN_IF_ERROR(RunRanks(job.ranks, [&](World& world) -> absl::Status {
    CpuDevice device;
    std::vector<int> everyone;
    for (int r = 0; r < world.size(); ++r) everyone.push_back(r);
    ASSIGN_OR_RETURN(const auto control, world.Connect({"control", everyone}));
    const auto plan = std::make_shared<const Plan>(plans[world.rank()]);
    ASSIGN_OR_RETURN(const auto runner, RankRunner::Create(job, plan, world, device, nullptr));
    ASSIGN_OR_RETURN(const auto saver,
                     Saver::Create({env, job, plans, runner->executor(), device, *control, world.rank()}));
    int64_t next_sample = 0;
    int step = 0;
    if (load.empty()) {
      RETURN_IF_ERROR(runner->InitParameters(static_cast<uint64_t>(config.run.seed)));
    } else {
      ASSIGN_OR_RETURN(CheckpointReader reader, CheckpointReader::Open(env, load));
      RETURN_IF_ERROR(LoadStates(reader, plans, runner->executor(), LoadFor::kTraining));
      next_sample = reader.meta().next_sample;
      step = static_cast<int>(reader.step());
    }
    while (true) {
      if (step == kSaved || step == kSteps) {
        ASSIGN_OR_RETURN(const std::vector<SaveReport> saved, saver->SaveNow(step, next_sample));
        if (world.rank() == 0) (step == kSaved ? leg.saved : leg.last) = saved.back().path;
      }
      if (step == kSteps) break;
      ASSIGN_OR_RETURN(const StepReport report, runner->TrainStep(++step, next_sample, rows));
      next_sample += runner->rows_per_step();
      if (world.rank() == 0 && step > kSaved) leg.losses.push_back(report.loss);
    }
    RETURN_IF_ERROR(runner->Close());
    return control->Close();
  }));
  return leg;
}

struct LayoutOf {
  int64_t dp, tp, accumulate;
  int64_t zero = 0;  // stage
  bool sequence = false;
  bool operator==(const LayoutOf&) const = default;
};

std::string Text(const LayoutOf& l) {
  return absl::StrFormat("dp %d tp %d accumulate %d zero %d sequence %d", l.dp, l.tp, l.accumulate, l.zero, l.sequence);
}

template <typename T>
const T& Pick(std::mt19937& random, const std::vector<T>& all) {
  return all[std::uniform_int_distribution<size_t>(0, all.size() - 1)(random)];
}

const std::vector<LayoutOf> kLayouts = {
    {1, 1, 1},    {1, 1, 4},          {2, 1, 1},          {4, 1, 2},          {8, 1, 1},    {1, 2, 1},    {1, 4, 2},
    {2, 2, 1},    {2, 2, 2},          {4, 2, 1},          {2, 4, 1},          {2, 1, 1, 1}, {4, 1, 2, 1}, {8, 1, 1, 1},
    {2, 2, 1, 1}, {1, 4, 1, 0, true}, {2, 2, 1, 0, true}, {2, 4, 1, 1, true}, {4, 1, 1, 2}, {2, 2, 1, 3}, {4, 1, 2, 3}};

struct ModelOfTest {
  ModelArch arch;
  bool tied;
};
const std::vector<ModelOfTest> kModels = {
    {ModelArch::kLlama, false}, {ModelArch::kLlama, true}, {ModelArch::kGpt2, true}, {ModelArch::kBert, true}};

JobConfig ConfigOf(const ModelOfTest& model, const LayoutOf& l) {
  JobConfig c = SmallJobOf(model.arch, l.dp, l.tp, l.accumulate);
  c.parallel.zero.stage = l.zero;
  c.parallel.sequence_parallel = l.sequence;
  c.model.vocab = 33;  // padded where there is tp
  c.model.tied = model.tied && model.arch == ModelArch::kLlama;
  return c;
}

void ExpectSameTensors(const std::string& a, const std::string& b) {
  const absl::StatusOr<CheckpointDiff> diff = DiffCheckpoints(Env::Posix(), a, b);
  ASSERT_TRUE(diff.ok()) << diff.status();
  EXPECT_GT(diff->tensors, 30);
  EXPECT_TRUE(diff->differ.empty()) << diff->ToText();
}

TEST(Reshard, ThirtyRandomPairsOfLayouts) {
  std::mt19937 random(11);
  for (int pair = 0; pair < 30; ++pair) {
    const ModelOfTest model = kModels[pair % kModels.size()];
    const LayoutOf a = Pick(random, kLayouts), b = pair % 10 == 0 ? a : Pick(random, kLayouts);
    SCOPED_TRACE(absl::StrFormat("pair %d: %s, %s to %s", pair, kModelArchNames[static_cast<int>(model.arch)], Text(a),
                                 Text(b)));
    const TempDir dir;
    const absl::StatusOr<Leg> from = RunLeg(ConfigOf(model, a), "", dir.path("a"));
    ASSERT_TRUE(from.ok()) << from.status();
    const absl::StatusOr<Leg> to = RunLeg(ConfigOf(model, b), from->saved, dir.path("b"));
    ASSERT_TRUE(to.ok()) << to.status();
    ExpectSameTensors(from->saved, to->saved);
    ASSERT_EQ(from->losses.size(), static_cast<size_t>(kSteps - kSaved));
    if (a == b) {
      EXPECT_EQ(to->losses, from->losses);
      ExpectSameTensors(from->last, to->last);
    } else {
      EXPECT_THAT(to->losses, ::testing::Pointwise(::testing::DoubleNear(kTolerance), from->losses));
    }
  }
}

// Tensors keep their names wherever the stages of a pipeline end: in the middle of a block too, on one rank or on two.
TEST(Reshard, StagesThatEndInABlock) {
  const std::pair<const char*, const char*> kPairs[] = {
      {"llama tied layers3 zb-h1 pp2 dp2 acc4 zero1 cut=E,0-1a|1b-2,H", "llama tied layers3 tp2 acc2"},
      {"llama tied layers3 dp4 acc2 zero3", "llama tied layers3 zbv pp2 dp2 acc4 zero3 cut=E,0|1a|1b|2,H"},
      {"gpt2 layers4 bitpipe pp2 acc4 cut=E,0a|0b-1|2|3,H", "gpt2 layers4 1f1b pp2 tp2 acc4 cut=E,0-2a|2b-3,H"},
      {"bert layers2 1f1b pp2 acc2 cut=E,0|1,H", "bert layers2 1f1b pp3 dp2 acc4 zero1 cut=E,0a|0b-1a|1b,H"},
  };
  for (const auto& [a, b] : kPairs) {
    SCOPED_TRACE(absl::StrFormat("%s to %s", a, b));
    const TempDir dir;
    const absl::StatusOr<Leg> from = RunLeg(testing::ParseLayoutRow(a).config, "", dir.path("a"));
    ASSERT_TRUE(from.ok()) << from.status();
    const absl::StatusOr<Leg> to = RunLeg(testing::ParseLayoutRow(b).config, from->saved, dir.path("b"));
    ASSERT_TRUE(to.ok()) << to.status();
    ExpectSameTensors(from->saved, to->saved);
    EXPECT_THAT(to->losses, ::testing::Pointwise(::testing::DoubleNear(kTolerance), from->losses));
  }
}

// bf16 training goes on in float32 from its master weights, and float32 training in bf16, in another layout.
TEST(Reshard, OtherPrecisions) {
  const auto config = [](DType compute, const LayoutOf& l) {
    JobConfig c = testing::SmallJob(l.dp, l.tp, l.accumulate);
    c.precision.compute = compute;
    return c;
  };
  for (const auto& [x, y] : {std::pair(DType::kBF16, DType::kF32), std::pair(DType::kF32, DType::kBF16)}) {
    const TempDir dir;
    const absl::StatusOr<Leg> from = RunLeg(config(x, {2, 2, 1}), "", dir.path("a"));
    ASSERT_TRUE(from.ok()) << from.status();
    const absl::StatusOr<Leg> to = RunLeg(config(y, {1, 4, 2}), from->saved, dir.path("b"));
    ASSERT_TRUE(to.ok()) << to.status();
    EXPECT_THAT(to->losses, ::testing::Pointwise(::testing::DoubleNear(3e-2), from->losses));
    const absl::StatusOr<CheckpointDiff> diff = DiffCheckpoints(Env::Posix(), from->saved, to->saved);
    ASSERT_TRUE(diff.ok()) << diff.status();
    for (const TensorDiff& d : diff->differ) EXPECT_EQ(d.name.find("exp_avg"), std::string::npos) << diff->ToText();
  }
}

}  // namespace
}  // namespace strata
