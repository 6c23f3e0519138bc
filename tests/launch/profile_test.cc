// Timed steps, and what of one overlap has hidden.

#include "launch/job/profile.h"

#include <gtest/gtest.h>

#include "core/base/status.h"
#include "core/exec/cpu_device.h"
#include "parallel/comm/thread_world.h"
#include "tests/testing/small_job.h"

namespace strata {
namespace {

using Timed = Executor::TimedStep;

TEST(Profile, ExposedIsWhereACollectiveRunsAlone) {
  const Step copy{.kind = Step::kCopy}, gather{.kind = Step::kCollective};
  const auto on = [](const Step& s, double begin, double seconds) {
    return Timed{.step = &s, .begin = begin, .seconds = seconds};
  };
  EXPECT_EQ(ExposedSeconds({}), 0);
  EXPECT_EQ(ExposedSeconds({on(copy, 0, 5)}), 0);
  EXPECT_EQ(ExposedSeconds({on(gather, 1, 5)}), 5);
  // [0, 4) computes; a collective in [3, 6), another in [5, 8); [7, 9) computes.
  EXPECT_EQ(ExposedSeconds({on(copy, 0, 4), on(gather, 3, 3), on(gather, 5, 3), on(copy, 7, 2)}), 3);
  // Hidden: under two launches on two streams, one of which goes on.
  EXPECT_EQ(ExposedSeconds({on(copy, 0, 2), on(copy, 1, 9), on(gather, 2, 6)}), 0);
  // Idle time without a collective is not exposed communication.
  EXPECT_EQ(ExposedSeconds({on(copy, 0, 1), on(copy, 5, 1)}), 0);
}

class TimerCounter final : public CpuDevice {
 public:
  absl::StatusOr<Event> NewTimer() override {
    ++timers;
    return CpuDevice::NewTimer();
  }
  int timers = 0;
};

TEST(Profile, StepsAreTimedOneByOneByTimersThatAreKept) {
  const absl::Status status = RunRanks(1, [](World& world) -> absl::Status {
    const KernelTable kernels = CpuKernels();
    ASSIGN_OR_RETURN(const Job job, CompileTraining(testing::SmallJob(1, 1, 2), kernels));
    ASSIGN_OR_RETURN(Plan plan, PlanRank(job, 0, kernels));
    TimerCounter device;
    ASSIGN_OR_RETURN(const auto runner,
                     RankRunner::Create(job, std::make_shared<const Plan>(std::move(plan)), world, device, nullptr));
    RETURN_IF_ERROR(runner->InitParameters(7));
    const testing::TableRows rows(job.config.model.vocab, 3);
    ASSIGN_OR_RETURN(const std::vector<Timed> first, runner->ProfileStep(1, 0, rows));
    EXPECT_EQ(device.timers, 2 * static_cast<int>(first.size()) + 1);
    ASSIGN_OR_RETURN(const std::vector<Timed> second, runner->ProfileStep(2, 0, rows));
    EXPECT_EQ(second.size(), first.size());
    EXPECT_EQ(device.timers, 2 * static_cast<int>(first.size()) + 1);
    for (size_t i = 1; i < second.size(); ++i) EXPECT_GE(second[i].begin, second[i - 1].begin + second[i - 1].seconds);
    return runner->Close();
  });
  EXPECT_TRUE(status.ok()) << status;
}

}  // namespace
}  // namespace strata
