// train, plan, generate, eval.

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "absl/strings/str_format.h"
#include "checkpoint/catalog.h"
#include "core/base/status.h"
#include "core/base/thread_pool.h"
#include "launch/config/load_config.h"
#include "launch/config/print_config.h"
#include "launch/job/checkpoint_io.h"
#include "launch/job/evaluate.h"
#include "launch/job/open_inputs.h"
#include "launch/job/plan_report.h"
#include "launch/job/run_alone.h"
#include "launch/job/sampler.h"
#include "launch/job/trainer.h"
#include "launch/verbs/verbs.h"

namespace strata {
namespace {

void Print(const std::string& text) { std::fputs(text.c_str(), stdout); }

absl::StatusOr<std::string> PickCheckpoint(const JobConfig& c, const std::string& named) {
  if (!named.empty()) return named;
  ASSIGN_OR_RETURN(const NewestValid newest, FindNewestValid(Env::Posix(), c.run.out + "/checkpoints"));
  return newest.path;
}

// Continues the prompt one token at a time on the last `seq` tokens, printing as it goes.
absl::Status Generate(const GenerateOptions& options, const JobConfig& c, const Tokenizer& tokenizer,
                      RankRunner& runner) {
  ASSIGN_OR_RETURN(std::vector<int32_t> tokens, tokenizer.EncodePrompt(options.prompt));
  if (tokens.empty()) return absl::InvalidArgumentError("--prompt is empty");
  const SamplerOptions sampler{options.temperature, options.top_k, options.top_p, static_cast<uint64_t>(options.seed)};
  Print(options.prompt);
  for (int64_t i = 0; i < options.tokens; ++i) {
    const size_t from = tokens.size() > static_cast<size_t>(c.model.seq) ? tokens.size() - c.model.seq : 0;
    ASSIGN_OR_RETURN(const std::vector<double> logits, runner.NextLogits(std::span(tokens).subspan(from)));
    const size_t pieces =
        std::min<size_t>(logits.size(), tokenizer.vocab_size());  // the model's vocabulary may be padded
    const int32_t next = SampleToken(std::span(logits).first(pieces), sampler, tokens.size());
    if (tokenizer.Stops(next)) break;
    tokens.push_back(next);
    Print(tokenizer.Decode({&next, 1}));
    std::fflush(stdout);
  }
  Print("\n");
  return absl::OkStatus();
}

}  // namespace

absl::Status RunTrain(const TrainOptions& options) {
  Env& env = Env::Posix();
  ASSIGN_OR_RETURN(const LoadedJob job,
                   LoadJobConfig(env, options.config, {.data = !options.print_config}, options.set));
  if (options.print_config) {
    Print(PrintConfig(job.config, job.provenance));
    return absl::OkStatus();
  }
  return Train(env, job, options);
}

absl::Status RunPlan(const PlanVerbOptions& options) {
  if (!options.schedule.empty()) return RunPlanSchedule(options);
  ASSIGN_OR_RETURN(const LoadedJob loaded, LoadJobConfig(Env::Posix(), options.config, {}, options.set));
  ASSIGN_OR_RETURN(const BackEnd back_end, BackEndOf(loaded.config));
  ASSIGN_OR_RETURN(const Job job, CompileTraining(loaded.config, back_end.kernels));
  ASSIGN_OR_RETURN(const std::vector<Plan> plans, PlanRanks(job, back_end.kernels));
  const double flops =
      back_end.cuda() ? 0 : MeasureFlops(loaded.config.precision.compute, std::min(job.ranks, AvailableCores()));
  Print(PlanReport(job, plans, flops, options.steps ? PrintDetail::kSteps : PrintDetail::kSummary));
  return absl::OkStatus();
}

absl::Status RunGenerate(const GenerateOptions& options) {
  ASSIGN_OR_RETURN(const LoadedJob loaded,
                   LoadJobConfig(Env::Posix(), options.config, {.tokenizer = true}, options.set));
  const JobConfig& c = loaded.config;
  JobConfig one_rank = c;
  one_rank.parallel = {};
  ASSIGN_OR_RETURN(const BackEnd back_end, BackEndOf(one_rank));
  ASSIGN_OR_RETURN(const Job job, CompileGeneration(c, back_end.kernels));
  ASSIGN_OR_RETURN(const JobInputs inputs, OpenInputs(Env::Posix(), loaded, {.tokenizer = true}));
  ASSIGN_OR_RETURN(const std::string folder, PickCheckpoint(c, options.checkpoint));
  ASSIGN_OR_RETURN(CheckpointReader reader, CheckpointReader::Open(Env::Posix(), folder));
  return RunAlone(back_end, job, [&](const Plan& plan, RankRunner& runner) -> absl::Status {
    RETURN_IF_ERROR(LoadStates(reader, {&plan, 1}, runner.executor(), LoadFor::kForward));
    return Generate(options, c, *inputs.tokenizer, runner);
  });
}

absl::Status RunEval(const EvalOptions& options) {
  const ConfigNeeds needs{.valid = options.data.empty()};
  ASSIGN_OR_RETURN(const LoadedJob loaded, LoadJobConfig(Env::Posix(), options.config, needs, options.set));
  const JobConfig& c = loaded.config;
  const std::string& prefix = options.data.empty() ? c.data.valid : options.data;
  ASSIGN_OR_RETURN(const std::string folder, PickCheckpoint(c, options.checkpoint));
  ASSIGN_OR_RETURN(const EvalReport r, EvaluateCheckpoint(Env::Posix(), c, folder, prefix));
  Print(absl::StrFormat("checkpoint %s, step %d\n", folder, r.step));
  Print(absl::StrFormat("loss %.4f nats a token (%.4f bits), perplexity %.2f, on %d tokens of %s\n", r.loss,
                        r.loss / std::log(2.0), std::exp(r.loss), r.tokens, prefix));
  return absl::OkStatus();
}

}  // namespace strata
