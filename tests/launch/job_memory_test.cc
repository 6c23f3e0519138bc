#include "launch/job/job_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/kernels/cpu_kernels.h"
#include "tests/launch/small_run.h"

namespace strata {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr int kDevice = static_cast<int>(Tier::kDevice);
constexpr int64_t kGiB = int64_t{1} << 30, kMoreThanAMachine = int64_t{1} << 46;

Job SmallJob() {
  const SmallRun run;
  const absl::StatusOr<Job> job = CompileTraining(run.Load().config, CpuKernels());
  EXPECT_TRUE(job.ok()) << job.status();
  return *job;
}

std::vector<Plan> Plans(std::initializer_list<int64_t> arenas, int64_t outside) {
  std::vector<Plan> plans;
  for (const int64_t bytes : arenas) {
    plans.emplace_back().arena_bytes[kDevice] = bytes;
    plans.back().outside_bytes[kDevice] = outside;
  }
  return plans;
}

TEST(JobMemory, ArenasOnTheHostMustFitIt) {
  const Job job = SmallJob();
  EXPECT_TRUE(CheckFits(job, Plans({kGiB / 1024}, 0)).ok());
  const absl::Status s = CheckFits(job, Plans({kGiB, kMoreThanAMachine}, 0));
  EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(s.message()), HasSubstr("the plan of 2 ranks needs 64.00 TiB"));
  EXPECT_THAT(std::string(s.message()), HasSubstr("memory of one rank"));
  EXPECT_TRUE(CheckFits(job, Plans({kGiB, kMoreThanAMachine}, kGiB)).ok()) << "on GPUs";
}

TEST(JobMemory, TextsSayWhereItIs) {
  const Job job = SmallJob();
  const std::string cpu = MemoryText(job, Plans({kGiB, kGiB}, 0)), gpu = MemoryText(job, Plans({kGiB, 2 * kGiB}, kGiB));
  EXPECT_THAT(cpu, HasSubstr("all ranks: arenas 2.00 GiB (exact), save buffers "));
  EXPECT_THAT(cpu, HasSubstr(", together 2."));
  EXPECT_THAT(gpu, HasSubstr("all ranks (arenas differ), on GPUs: arenas 3.00 GiB (exact), outside 2.00 GiB "
                             "(estimated), at most 3.00 GiB of a GPU\n"));
  EXPECT_THAT(gpu, HasSubstr("on the host: save buffers "));
  EXPECT_THAT(Print(Plans({kGiB}, kGiB / 2)[0]), HasSubstr("outside of it              512.00 MiB"));
  EXPECT_THAT(Print(Plans({kGiB}, 0)[0]), Not(HasSubstr("outside")));
}

TEST(JobMemory, NcclTakesMoreForEachCommunicator) {
  Plan plan;
  plan.comms = {{"dp", {0, 1}}, {}, {"tp", {1}}};  // one that connects nothing, and one of another rank
  const int64_t alone = GpuOutsideBytes(plan, Transport::kPeers), one = GpuOutsideBytes(plan, Transport::kNccl);
  plan.comms.push_back({"edge 0->1 activation", {0, 1}});
  const int64_t two = GpuOutsideBytes(plan, Transport::kNccl);
  EXPECT_GT(one, alone);
  EXPECT_GT(two, one);
  EXPECT_GT(one - alone, two - one) << "the first one brings NCCL along";
  EXPECT_EQ(GpuOutsideBytes(plan, Transport::kPeers), alone);
  EXPECT_EQ(GpuOutsideBytes({}, Transport::kNccl), alone);
}

}  // namespace
}  // namespace strata
