#include "core/exec/gpu_meter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

namespace strata {
namespace {

using ::testing::HasSubstr;

class GpuMeterTest : public ::testing::Test {
 protected:
  static absl::StatusOr<GpuMeter> Open(const char* library, const std::string& bus_id = "0000:1B:00.0") {
    setenv("STRATA_NVML", library, 1);  // NOLINT(concurrency-mt-unsafe)
    absl::StatusOr<GpuMeter> meter = GpuMeter::Open(bus_id);
    unsetenv("STRATA_NVML");  // NOLINT(concurrency-mt-unsafe)
    return meter;
  }
};

TEST_F(GpuMeterTest, ReadsEnergyAndClock) {
  const absl::StatusOr<GpuMeter> meter = Open(STRATA_FAKE_NVML);
  ASSERT_TRUE(meter.ok()) << meter.status();
  const double before = *meter->Joules();
  EXPECT_EQ(*meter->Joules() - before, 250);
  EXPECT_EQ(*meter->Megahertz(), 1500);
}

TEST_F(GpuMeterTest, SaysWhatIsMissing) {
  EXPECT_THAT(std::string(Open("/nowhere/libnvidia-ml.so.1").status().message()), HasSubstr("/nowhere"));
  EXPECT_THAT(std::string(Open("libm.so.6").status().message()), HasSubstr("nvmlInit_v2"));
  EXPECT_EQ(Open(STRATA_FAKE_NVML, "0000:FF:00.0").status().message(), "nvmlDeviceGetHandleByPciBusId: Not Found");
  const absl::StatusOr<GpuMeter> meter = Open(STRATA_FAKE_NVML);
  ASSERT_TRUE(meter.ok()) << meter.status();
  EXPECT_TRUE(absl::IsFailedPrecondition(meter->LimitInWatts().status()));
}

}  // namespace
}  // namespace strata
