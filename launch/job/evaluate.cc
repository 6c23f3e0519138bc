#include "launch/job/evaluate.h"

#include <algorithm>

#include "core/base/status.h"
#include "launch/data/loader.h"
#include "launch/data/objective_rows.h"
#include "launch/job/checkpoint_io.h"
#include "launch/job/run_alone.h"

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
  RankRunner::LossSum sum;
  RETURN_IF_ERROR(RunAlone(back_end, job, [&](const Plan& plan, RankRunner& runner) -> absl::Status {
    RETURN_IF_ERROR(LoadStates(reader, {&plan, 1}, runner.executor(), LoadFor::kForward));
    const WindowRows windows(loader);
    ASSIGN_OR_RETURN(sum, runner.Evaluate(rows, ObjectiveRows(windows, config.model, config.run.seed)));
    return absl::OkStatus();
  }));
  return EvalReport{reader.step(), sum.nats / static_cast<double>(sum.tokens), sum.tokens};
}

}  // namespace strata
