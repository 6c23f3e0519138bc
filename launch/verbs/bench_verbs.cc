// bench step: a job's training step on random tokens.

#include <algorithm>
#include <chrono>
#include <cstdio>

#include "absl/strings/str_format.h"
#include "core/base/philox.h"
#include "core/base/status.h"
#include "core/base/thread_pool.h"
#include "launch/config/load_config.h"
#include "launch/job/back_end.h"
#include "launch/job/plan_report.h"
#include "launch/job/rank_runner.h"
#include "launch/verbs/verbs.h"
#include "models/model.h"
#include "parallel/comm/thread_world.h"

namespace strata {
namespace {

class RandomRows final : public RowSource {
 public:
  explicit RandomRows(int64_t vocab) : vocab_(static_cast<uint64_t>(vocab)) {}
  absl::Status Row(int64_t index, const RowSpans& row) const override {
    for (size_t i = 0; i < row.tokens.size(); ++i) {
      const PhiloxBlock r = Philox(1, static_cast<uint64_t>(index), i);
      row.tokens[i] = static_cast<int32_t>(r[0] % vocab_);
      row.targets[i] = static_cast<int32_t>(r[1] % vocab_);
      row.weights[i] = 1;
      row.document_starts[i] = 0;
    }
    return absl::OkStatus();
  }

 private:
  uint64_t vocab_;
};

constexpr int64_t kWarmup = 3;

}  // namespace

absl::Status RunBenchStep(const BenchStepOptions& options) {
  ASSIGN_OR_RETURN(const LoadedJob loaded, LoadJobConfig(Env::Posix(), options.config));
  const JobConfig& c = loaded.config;
  ASSIGN_OR_RETURN(const BackEnd back_end, BackEndOf(c));
  ASSIGN_OR_RETURN(const Job job, CompileTraining(c, back_end.kernels));
  ASSIGN_OR_RETURN(const std::vector<Plan> plans, PlanRanks(job, back_end.kernels));
  RETURN_IF_ERROR(CheckFits(job, plans));
  const RandomRows rows(c.model.vocab);
  const int threads = std::max(1, AvailableCores() / job.ranks);
  std::vector<double> seconds;
  double first_loss = 0, last_loss = 0;
  RETURN_IF_ERROR(RunRanks(job.ranks, [&](World& world) -> absl::Status {
    ASSIGN_OR_RETURN(const std::unique_ptr<Device> device, OpenDevice(back_end, world.rank()));
    ThreadPool pool(threads);
    const auto plan = std::make_shared<const Plan>(plans[world.rank()]);
    ASSIGN_OR_RETURN(const auto runner, RankRunner::Create(job, plan, world, *device, &pool));
    RETURN_IF_ERROR(runner->InitParameters(static_cast<uint64_t>(c.run.seed)));
    for (int64_t step = 1; step <= options.steps + kWarmup; ++step) {
      const auto start = std::chrono::steady_clock::now();
      ASSIGN_OR_RETURN(const StepReport report, runner->TrainStep(step, (step - 1) * runner->rows_per_step(), rows));
      if (world.rank() != 0) continue;
      if (step > kWarmup)
        seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
      if (step == 1) first_loss = report.loss;
      last_loss = report.loss;
    }
    return runner->Close();
  }));
  std::sort(seconds.begin(), seconds.end());
  const double median = seconds[seconds.size() / 2], tokens = static_cast<double>(c.batch.tokens);
  int64_t planned = OutsideBytes(job);
  for (const Plan& p : plans) planned += p.arena_bytes[0];
  std::printf(
      "{\"engine\": \"strata\", \"ranks\": %d, \"threads\": %d, \"step_s\": %.6f, \"min_s\": %.6f, \"max_s\": %.6f, "
      "\"tokens_per_s\": %.1f, \"gflops\": %.1f, \"first_loss\": %.4f, \"last_loss\": %.4f, "
      "\"planned_bytes\": %lld, \"peak_bytes\": %lld}\n",
      job.ranks, threads, median, seconds.front(), seconds.back(), tokens / median,
      FlopsPerToken(c.model) * tokens / median / 1e9, first_loss, last_loss, static_cast<long long>(planned),
      static_cast<long long>(PeakResidentBytes()));
  return absl::OkStatus();
}

}  // namespace strata
