#include "launch/job/evaluate.h"

#include <algorithm>

#include "core/base/status.h"
#include "core/base/thread_pool.h"
#include "launch/data/loader.h"
#include "launch/data/objective_rows.h"
#include "launch/job/back_end.h"
#include "launch/job/checkpoint_io.h"
#include "launch/job/rank_runner.h"
#include "parallel/comm/thread_world.h"

namespace strata {

absl::StatusOr<EvalReport> EvaluateCheckpoint(Env& env, const JobConfig& config, const std::string& checkpoint,
                                              const std::string& prefix) {
  ASSIGN_OR_RETURN(CheckpointReader reader, CheckpointReader::Open(env, checkpoint));
  ASSIGN_OR_RETURN(const Loader loader,
                   Loader::Create(env, prefix, config.model.seq, static_cast<uint64_t>(config.run.seed),
                                  config.model.vocab, config.data.packing));
  int64_t rows = loader.num_windows();
  if (config.eval.batches > 0) rows = std::min(rows, config.eval.batches * config.batch.micro * config.parallel.dp);

  JobConfig one_rank = config;
  one_rank.parallel = {};
  ASSIGN_OR_RETURN(const BackEnd back_end, BackEndOf(one_rank));
  ASSIGN_OR_RETURN(const Job job, CompileEvaluation(config, back_end.kernels));
  ASSIGN_OR_RETURN(std::vector<Plan> plans, PlanRanks(job, back_end.kernels));
  const auto plan = std::make_shared<const Plan>(std::move(plans[0]));
  ThreadPool pool(AvailableCores());
  RankRunner::LossSum sum;
  RETURN_IF_ERROR(RunRanks(1, [&](World& world) -> absl::Status {
    ASSIGN_OR_RETURN(const std::unique_ptr<Device> device, OpenDevice(back_end, 0));
    ASSIGN_OR_RETURN(const auto runner, RankRunner::Create(job, plan, world, *device, &pool));
    RETURN_IF_ERROR(LoadStates(reader, {plan.get(), 1}, runner->executor(), LoadFor::kForward));
    const WindowRows windows(loader);
    ASSIGN_OR_RETURN(sum, runner->Evaluate(rows, ObjectiveRows(windows, config.model, config.run.seed)));
    return runner->Close();
  }));
  return EvalReport{reader.step(), sum.nats / static_cast<double>(sum.tokens), sum.tokens};
}

}  // namespace strata
