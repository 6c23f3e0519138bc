// What a job takes of a GPU, by the driver, beside what `strata plan` says.

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/base/status.h"
#include "core/base/thread_pool.h"
#include "core/kernels/cuda_kernels.h"
#include "launch/job/job_memory.h"
#include "launch/job/rank_runner.h"
#include "parallel/comm/thread_world.h"
#include "tests/launch/small_run.h"
#include "tests/testing/gpu_job.h"
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

TEST(GpuMemory, NothingIsAllocatedAfterTheFirstStep) {
  STRATA_NEEDS_GPU();
  for (const int64_t accumulate : {1, 4}) {
    JobConfig c = GpuJobOf(ModelArch::kLlama, accumulate);
    c.precision.compute = DType::kBF16;
    const KernelTable kernels = CudaKernels(Determinism::kFast);
    const absl::StatusOr<Job> job = CompileTraining(c, kernels);
    ASSERT_TRUE(job.ok()) << job.status();
    const absl::StatusOr<std::vector<Plan>> plans = PlanRanks(*job, kernels);
    ASSERT_TRUE(plans.ok()) << plans.status();
    std::vector<int64_t> used;  // after each step
    const absl::Status ran = RunRanks(1, [&](World& world) -> absl::Status {
      ASSIGN_OR_RETURN(const std::unique_ptr<CudaDevice> device, CudaDevice::Open(0));
      ThreadPool pool(1);
      ASSIGN_OR_RETURN(const auto runner,
                       RankRunner::Create(*job, std::make_shared<const Plan>(plans->front()), world, *device, &pool));
      RETURN_IF_ERROR(runner->InitParameters(1));
      const TableRows rows(c.model.vocab, 3);
      // Segments are captured behind their first run, and replayed from the second on.
      for (int64_t step = 1; step <= 6; ++step) {
        RETURN_IF_ERROR(runner->TrainStep(step, (step - 1) * runner->rows_per_step(), rows).status());
        used.push_back(device->used_bytes());
      }
      return runner->Close();
    });
    ASSERT_TRUE(ran.ok()) << ran;
    EXPECT_EQ(used, std::vector<int64_t>(used.size(), used.front()));
  }
}

}  // namespace
}  // namespace strata::testing
