#include "core/exec/cuda_device.h"

#include <gmock/gmock.h>

#include "core/exec/gpu_meter.h"
#include "tests/testing/gpu.h"

namespace strata::testing {
namespace {

using ::testing::HasSubstr;

TEST(CudaDevice, SaysWhyThereIsNone) {
  if (CudaDeviceCount() > 0) GTEST_SKIP() << "this machine has a GPU: " << CudaStatusLine();
  const auto device = CudaDevice::Open(0);
  ASSERT_FALSE(device.ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(device.status())) << device.status();
  EXPECT_THAT(std::string(device.status().message()),
              ::testing::AnyOf(HasSubstr("built without CUDA"), HasSubstr("NVIDIA driver")));
}

TEST(CudaDevice, CopiesFillsAndReports) {
  STRATA_NEEDS_GPU();
  auto device = CudaDevice::Open(0);
  ASSERT_TRUE(device.ok()) << device.status();
  EXPECT_THAT((*device)->description(), HasSubstr("SMs"));
  EXPECT_TRUE(absl::IsNotFound(CudaDevice::Open(99).status()));
  const auto memory = (*device)->Reserve(Tier::kDevice, 1024);
  const auto stream = (*device)->NewStream("s", Priority::kNormal);
  ASSERT_TRUE(memory.ok() && stream.ok());
  std::vector<uint8_t> seen(1024, 1), expected(1024, 0);
  ASSERT_TRUE((*device)->Copy(seen.data(), *memory, 1024, *stream).ok());
  ASSERT_TRUE((*device)->Drain().ok());
  EXPECT_EQ(seen, expected) << "reserved memory is zero";
  ASSERT_TRUE((*device)->Fill(*memory, 7, 100, *stream).ok());
  ASSERT_TRUE((*device)->Copy(seen.data(), *memory, 1024, *stream).ok());
  ASSERT_TRUE((*device)->Drain().ok());
  std::fill_n(expected.begin(), 100, uint8_t{7});
  EXPECT_EQ(seen, expected);
}

TEST(CudaDevice, IsMeteredByItsBusId) {
  STRATA_NEEDS_GPU();
  auto device = CudaDevice::Open(0);
  ASSERT_TRUE(device.ok()) << device.status();
  const absl::StatusOr<GpuMeter> meter = GpuMeter::Open((*device)->bus_id());
  if (!meter.ok()) GTEST_SKIP() << meter.status();
  EXPECT_GT(meter->Joules().value_or(0), 0);
  EXPECT_GT(meter->Megahertz().value_or(0), 100);
  EXPECT_GT(meter->LimitInWatts().value_or(0), 50);
}

TEST(CudaDevice, OutOfMemoryNamesTheNeed) {
  STRATA_NEEDS_GPU();
  auto device = CudaDevice::Open(0);
  ASSERT_TRUE(device.ok()) << device.status();
  const auto memory = (*device)->Reserve(Tier::kDevice, (*device)->total_bytes() * 2);
  EXPECT_TRUE(absl::IsResourceExhausted(memory.status())) << memory.status();
  EXPECT_THAT(std::string(memory.status().message()), HasSubstr("`strata plan`"));
  EXPECT_TRUE((*device)->Reserve(Tier::kDevice, 1024).ok()) << "the error does not stick";
}

}  // namespace
}  // namespace strata::testing
