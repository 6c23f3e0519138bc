#include "launch/job/back_end.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace strata {
namespace {

TEST(BackEnd, RefusesOnAGpuWhatItDoesNotDoAndTakesTheCpuForIt) {
  JobConfig config;
  config.precision.compute = DType::kF64;
  config.run.device = DeviceKind::kCuda;
  const absl::Status refused = BackEndOf(config).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(refused.message()), ::testing::HasSubstr("precision.compute = \"float64\""));
  config.run.device = DeviceKind::kAuto;
  const absl::StatusOr<BackEnd> automatic = BackEndOf(config);
  ASSERT_TRUE(automatic.ok()) << automatic.status();
  EXPECT_FALSE(automatic->cuda());
}

}  // namespace
}  // namespace strata
