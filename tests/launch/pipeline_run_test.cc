// Whole runs in a pipeline: the losses of a run without one, checkpoints that go on in another layout, and what is printed.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "launch/config/pipeline.h"
#include "launch/job/compile.h"
#include "launch/job/plan_report.h"
#include "tests/launch/small_run.h"
#include "tests/testing/layout_table.h"

namespace strata {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

const Overrides kModel = {"model.layers=4", "batch.accumulate=4", "checkpoint.every=3", "eval.every=2",
                          "schedule.steps=6"};

Overrides With(Overrides more) {
  more.insert(more.begin(), kModel.begin(), kModel.end());
  return more;
}

void ExpectSameLosses(const SmallRun& have, const SmallRun& want, const char* key) {
  const std::vector<nlohmann::json> a = have.Metrics(key), b = want.Metrics(key);
  ASSERT_EQ(a.size(), b.size());
  ASSERT_FALSE(a.empty());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i]["step"], b[i]["step"]);
    EXPECT_NEAR(a[i][key].get<double>(), b[i][key].get<double>(), 1e-9) << i;
  }
}

TEST(PipelineRun, HasTheLossesOfOneRank) {
  SmallRun one, many;
  ASSERT_TRUE(one.Train(With({})).ok());
  const absl::Status s = many.Train(With({"parallel.pp=2", "parallel.schedule=\"zbv\"", "parallel.dp=2"}));
  ASSERT_TRUE(s.ok()) << s;
  for (const char* key : {"loss", "grad_norm", "valid_loss"}) ExpectSameLosses(many, one, key);
}

// 2 pipeline ranks, whose stages meet in the middle of a block, then 4, then none: one run.
TEST(PipelineRun, GoesOnInAnotherLayout) {
  SmallRun one, many;
  ASSERT_TRUE(one.Train(With({})).ok());
  const Overrides halves = With({"parallel.pp=2", "parallel.tp=2", "parallel.stage_layout=\"E,0-1a | 1b-3,H\""});
  absl::Status s = many.Train(halves);
  ASSERT_TRUE(s.ok()) << s;
  std::error_code error;
  std::filesystem::remove_all(many.checkpoint(6), error);
  s = many.Train(With({"parallel.pp=4", "parallel.schedule=\"zb-h1\"", "parallel.stage_layout=\"E,0 | 1 | 2 | 3,H\""}));
  ASSERT_TRUE(s.ok()) << s;
  EXPECT_THAT(many.output, HasSubstr("step 3 of 6"));
  const double want = one.Metrics("loss").back()["loss"], have = many.Metrics("loss").back()["loss"];
  EXPECT_NEAR(have, want, 1e-9);
  std::filesystem::remove_all(many.checkpoint(6), error);
  s = many.Train(With({}));
  ASSERT_TRUE(s.ok()) << s;
  EXPECT_NEAR(many.Metrics("loss").back()["loss"].get<double>(), want, 1e-9);
  std::filesystem::remove_all(one.checkpoint(6), error);
  s = one.Train(halves);
  ASSERT_TRUE(s.ok()) << s;
  EXPECT_THAT(one.output, HasSubstr("step 3 of 6"));
  EXPECT_NEAR(one.Metrics("loss").back()["loss"].get<double>(), want, 1e-9);
}

TEST(PipelineRun, TakesAScheduleFromAFile) {
  const SmallRun run;
  const std::string path = run.dir().path("mine.csv");
  ASSERT_TRUE(WriteTextAtomically(Env::Posix(), path, "0F0,0F1,0B1,0B0\n1F0,1F1,1B1,1B0\n").ok());
  const Overrides base = {"model.layers=2", "batch.accumulate=2", "parallel.pp=2", "parallel.schedule_file=" + path};
  SmallRun one, many;
  ASSERT_TRUE(one.Train({"model.layers=2", "batch.accumulate=2"}).ok());
  const absl::Status s = many.Train(base);
  ASSERT_TRUE(s.ok()) << s;
  ExpectSameLosses(many, one, "loss");

  const auto error = [&](const Overrides& more) {
    Overrides all = base;
    all.insert(all.end(), more.begin(), more.end());
    run.Load();
    return std::string(LoadJobConfig(Env::Posix(), run.dir().path("run.toml"), {.data = true}, all).status().message());
  };
  EXPECT_THAT(error({"batch.accumulate=4"}), HasSubstr("mine.csv is for 2 micro-batches, but batch.accumulate = 4"));
  EXPECT_THAT(error({"parallel.pp=1"}), HasSubstr("needs parallel.pp > 1"));
  ASSERT_TRUE(WriteTextAtomically(Env::Posix(), path, "0F0,0F1,0B1,0B0\n1F0,1B1,1F1,1B0\n").ok());
  EXPECT_THAT(error({}), HasSubstr("parallel.schedule_file"));
}

TEST(PipelineRun, PlanSaysWhereTheStagesAre) {
  const KernelTable kernels = CpuKernels();
  const auto report = [&](const char* words, PrintDetail detail) {
    const JobConfig config = testing::ParseLayoutRow(words).config;
    const absl::StatusOr<Job> job = CompileTraining(config, kernels);
    if (!job.ok()) return job.status().ToString();
    const absl::StatusOr<std::vector<Plan>> plans = PlanRanks(*job, kernels);
    return plans.ok() ? PlanReport(*job, *plans, 0, detail) : plans.status().ToString();
  };
  const std::string text = report("llama layers5 zbv pp2 tp2 acc4 cut=E,0|1|2-3|4,H", PrintDetail::kSummary);
  EXPECT_THAT(text, HasSubstr("pipeline zbv: 2 ranks x 2 stages, 4 micro-batches"));
  EXPECT_THAT(text, HasSubstr("E,0\n"));
  EXPECT_THAT(text, HasSubstr("2-3\n"));
  EXPECT_THAT(text, HasSubstr("0F0,"));
  EXPECT_THAT(text, HasSubstr("which holds most"));
  EXPECT_THAT(report("llama layers4 1f1b pp2 acc4", PrintDetail::kSteps), HasSubstr("0sendF0>1"));
  const std::string halves = report("llama layers4 1f1b pp2 acc4 cut=E,0,1a|1b,2-3,H", PrintDetail::kSummary);
  EXPECT_THAT(halves, HasSubstr("E,0-1a\n"));
  EXPECT_THAT(halves, HasSubstr("1b-3,H\n"));
  EXPECT_THAT(report("llama acc4", PrintDetail::kSummary), Not(HasSubstr("pipeline")));
}

}  // namespace
}  // namespace strata
