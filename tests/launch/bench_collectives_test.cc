// bench collectives on CPU ranks: every collective at every size, checked, and a line of JSON at the end.

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "launch/verbs/verbs.h"

namespace strata {
namespace {

nlohmann::json LastLine(const BenchCollectivesOptions& options) {
  testing::internal::CaptureStdout();
  const absl::Status status = RunBenchCollectives(options);
  const std::string text = testing::internal::GetCapturedStdout();
  EXPECT_TRUE(status.ok()) << status;
  const size_t last = text.rfind('\n', text.size() - 2);
  return nlohmann::json::parse(text.substr(last + 1), nullptr, false);
}

TEST(BenchCollectives, MeasuresEveryCollectiveAtEverySize) {
  for (const char* dtype : {"float32", "bfloat16", "float64"}) {
    const nlohmann::json j = LastLine({.ranks = 3,
                                       .device = "cpu",
                                       .dtype = dtype,
                                       .min = "1KiB",
                                       .max = "64KiB",
                                       .factor = 8,
                                       .warmup = 1,
                                       .iterations = 3});
    ASSERT_TRUE(j.is_object());
    EXPECT_EQ(j["ranks"], 3);
    EXPECT_EQ(j["transport"], "host");
    ASSERT_EQ(j["rows"].size(), 6u * 3);
    for (const auto& row : j["rows"]) {
      const double us = row["us"], bytes = row["bytes"], rate = row["gb_per_s"];
      EXPECT_GT(us, 0);
      EXPECT_NEAR(rate, bytes / us / 1e3, 0.01 * rate + 1e-3);
      EXPECT_GT(bytes, 900);
    }
    EXPECT_NEAR(j["rows"][0]["bus_gb_per_s"].get<double>(), j["rows"][0]["gb_per_s"].get<double>() * 4 / 3, 1e-3);
  }
}

TEST(BenchCollectives, OnlyWhatIsAskedFor) {
  const nlohmann::json j = LastLine({.ranks = 1,
                                     .device = "cpu",
                                     .min = "4B",
                                     .max = "4B",
                                     .warmup = 0,
                                     .iterations = 1,
                                     .only = {"all-gather", "send-recv"}});
  ASSERT_EQ(j["rows"].size(), 2u);
  EXPECT_EQ(j["rows"][0]["collective"], "all-gather");
  EXPECT_EQ(j["rows"][1]["collective"], "send-recv");
}

TEST(BenchCollectives, MistakesAreTold) {
  EXPECT_TRUE(absl::IsInvalidArgument(RunBenchCollectives({.device = "cpu", .min = "8KiB", .max = "4KiB"})));
  EXPECT_TRUE(absl::IsInvalidArgument(RunBenchCollectives({.device = "cpu", .min = "many"})));
}

}  // namespace
}  // namespace strata
