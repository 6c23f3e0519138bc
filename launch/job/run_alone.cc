#include "launch/job/run_alone.h"

#include "core/base/status.h"
#include "core/base/thread_pool.h"
#include "parallel/comm/thread_world.h"

namespace strata {

absl::Status RunAlone(const BackEnd& back_end, const Job& job,
                      absl::FunctionRef<absl::Status(const Plan& plan, RankRunner& runner)> body) {
  ASSIGN_OR_RETURN(std::vector<Plan> plans, PlanRanks(job, back_end.kernels));
  const auto plan = std::make_shared<const Plan>(std::move(plans[0]));
  ThreadPool pool(AvailableCores());
  return RunRanks(1, [&](World& world) -> absl::Status {
    ASSIGN_OR_RETURN(const std::unique_ptr<Device> device, OpenDevice(back_end, 0));
    ASSIGN_OR_RETURN(const auto runner, RankRunner::Create(job, plan, world, *device, &pool));
    RETURN_IF_ERROR(body(*plan, *runner));
    return runner->Close();
  });
}

}  // namespace strata
