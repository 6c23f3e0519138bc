// What a job takes of a GPU, by the driver, beside what `strata plan` says.

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "launch/job/job_memory.h"
#include "tests/launch/small_run.h"
#include "tests/testing/gpu.h"
#include "tests/testing/strata_program.h"

namespace strata::testing {
namespace {

TEST(GpuMemory, OutsideOfTheArenaIsAsEstimated) {
  STRATA_NEEDS_GPU();
  auto device = CudaDevice::Open(0);
  ASSERT_TRUE(device.ok()) << device.status();
  const int64_t others = (*device)->used_bytes();  // this program's among them
  SmallRun run;
  run.Load();
  const Ended bench = Strata(
      "bench step " + run.dir().path("run.toml") +
      " --steps 3 --set run.device='\"cuda\"' --set precision.compute='\"bf16\"' --set model.dim=256 "
      "--set model.heads=4 --set model.kv_heads=4 --set model.ffn=512 --set model.seq=256 --set batch.tokens=1024");
  ASSERT_EQ(bench.code, 0) << bench.out;
  const nlohmann::json result = nlohmann::json::parse(bench.out.substr(bench.out.rfind("\n{") + 1), nullptr, false);
  ASSERT_TRUE(result.is_object()) << bench.out;
  const auto planned = result["planned_bytes"].get<int64_t>(), used = result["peak_bytes"].get<int64_t>() - others;
  const auto estimated = static_cast<double>(GpuOutsideBytes({}, Transport::kAuto));
  EXPECT_NEAR(static_cast<double>(used - planned), 0, 0.05 * estimated) << used << " used, " << planned << " planned";
}

}  // namespace
}  // namespace strata::testing
