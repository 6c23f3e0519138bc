#include "launch/job/evaluate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/launch/small_run.h"

namespace strata {
namespace {

using ::testing::HasSubstr;

TEST(Evaluate, IsTheTrainingRunsOwnValidationLoss) {
  SmallRun run;
  for (const char* layout : {"parallel.tp=1", "parallel.tp=2"}) {  // any layout's checkpoint
    const absl::Status trained = run.Train({"parallel.dp=2", layout}, "never");
    ASSERT_TRUE(trained.ok()) << trained;
    const LoadedJob job = run.Load({"parallel.dp=2", layout});
    const auto report = EvaluateCheckpoint(Env::Posix(), job.config, run.checkpoint(6), job.config.data.valid);
    ASSERT_TRUE(report.ok()) << report.status();
    const nlohmann::json last = run.Metrics("valid_loss").back();
    EXPECT_EQ(report->step, 6);
    EXPECT_EQ(report->tokens, last["valid_tokens"]);
    EXPECT_NEAR(report->loss, last["valid_loss"].get<double>(), 1e-12);
    EXPECT_LT(report->loss, run.Metrics("valid_loss").front()["valid_loss"].get<double>() - 0.01);
  }
}

TEST(Evaluate, OtherTokensAndABatch) {
  SmallRun run;
  ASSERT_TRUE(run.Train().ok());
  const LoadedJob job = run.Load({"eval.batches=1"});
  const auto train = EvaluateCheckpoint(Env::Posix(), job.config, run.checkpoint(6), job.config.data.train[0].path);
  ASSERT_TRUE(train.ok()) << train.status();
  EXPECT_EQ(train->tokens, 128);
}

TEST(Evaluate, ErrorsNameWhatIsWrong) {
  SmallRun run;
  ASSERT_TRUE(run.Train().ok());
  const LoadedJob job = run.Load();
  const auto message = [&](const JobConfig& config, const std::string& checkpoint, const std::string& prefix) {
    return std::string(EvaluateCheckpoint(Env::Posix(), config, checkpoint, prefix).status().message());
  };
  EXPECT_THAT(message(job.config, run.checkpoint(6), run.dir().path("none")), HasSubstr("none.idx"));
  EXPECT_THAT(message(job.config, run.checkpoint(5), job.config.data.valid), HasSubstr("step-0000000005"));
  EXPECT_THAT(message(run.Load({"model.layers=2"}).config, run.checkpoint(6), job.config.data.valid),
              HasSubstr("of another model: blocks.1."));
}

}  // namespace
}  // namespace strata
