// bench step --scaling: tokens a second on n ranks by n times those of one.

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "launch/verbs/verbs.h"
#include "tests/launch/small_run.h"

namespace strata {
namespace {

nlohmann::json Step(const SmallRun& run, double one_rank, bool scaling) {
  run.Load();
  testing::internal::CaptureStdout();
  const absl::Status status =
      RunBenchStep({.config = run.dir().path("run.toml"),
                    .set = {"parallel.dp=2", "parallel.zero=1", "precision.compute=\"float32\""},
                    .steps = 3,
                    .scaling = scaling,
                    .one_rank = one_rank});
  const std::string text = testing::internal::GetCapturedStdout();
  EXPECT_TRUE(status.ok()) << status;
  return nlohmann::json::parse(text, nullptr, false);
}

TEST(BenchStep, ScalingIsMeasuredOrAgainstAGivenFigure) {
  const SmallRun run;
  const nlohmann::json given = Step(run, 1000, true);
  ASSERT_TRUE(given.is_object());
  EXPECT_EQ(given["one_rank_tokens_per_s"], 1000);
  EXPECT_NEAR(given["scaling"].get<double>(), given["tokens_per_s"].get<double>() / 2000, 1e-3);
  const nlohmann::json measured = Step(run, 0, true);
  const double one = measured["one_rank_tokens_per_s"];
  EXPECT_GT(one, 0);
  EXPECT_NE(one, 1000);
  EXPECT_NEAR(measured["scaling"].get<double>(), measured["tokens_per_s"].get<double>() / (2 * one), 1e-3);
  EXPECT_FALSE(Step(run, 0, false).contains("scaling"));
}

}  // namespace
}  // namespace strata
