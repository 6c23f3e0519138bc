#include "tests/testing/small_job.h"

#include <limits>
#include <mutex>
#include <numeric>

#include "absl/strings/str_format.h"
#include "core/base/philox.h"
#include "core/base/status.h"
#include "core/exec/cpu_device.h"
#include "launch/data/objective_rows.h"
#include "launch/job/init_parameters.h"
#include "parallel/comm/counting.h"
#include "parallel/comm/thread_world.h"
#include "tests/testing/step_trace.h"

namespace strata::testing {

JobConfig SmallJob(int64_t dp, int64_t tp, int64_t accumulate) {
  JobConfig c;
  c.model = {.vocab = 32, .layers = 2, .dim = 16, .heads = 4, .kv_heads = 2, .ffn = 24, .seq = 8, .init_std = 0.1};
  c.precision.compute = DType::kF64;
  c.parallel = {.dp = dp, .tp = tp};
  c.batch = {.tokens = 64, .micro = 8 / (dp * accumulate), .accumulate = accumulate};
  c.optim.lr = 1e-2;
  c.optim.eps = 1e-4;
  c.schedule.steps = 10;
  c.schedule.warmup = 2;
  c.run.seed = 7;
  return c;
}

JobConfig SmallJobOf(ModelArch arch, int64_t dp, int64_t tp, int64_t accumulate) {
  JobConfig c = SmallJob(dp, tp, accumulate);
  c.model = {.arch = arch, .vocab = 32, .layers = 2, .dim = 16, .heads = 4, .kv_heads = 4, .ffn = 24, .seq = 8};
  c.model.init_std = 0.1;
  if (!c.model.traits().rope) c.model.dropout = 0.2;
  if (arch == ModelArch::kBert) c.model.mask_token = 31;
  return c;
}

absl::Status TableRows::Row(int64_t index, const RowSpans& row) const {
  const uint64_t id = static_cast<uint64_t>(index);
  for (size_t i = 0; i < row.tokens.size(); ++i) {
    const PhiloxBlock r = Philox(seed_, id, i);
    row.tokens[i] = static_cast<int32_t>(r[0] % static_cast<uint64_t>(vocab_));
    row.targets[i] = static_cast<int32_t>(r[1] % static_cast<uint64_t>(vocab_));
    row.weights[i] = r[2] % 8 < id % 7 + 1 ? 1.0f : 0.0f;
    row.document_starts[i] = i == 0 ? 0 : r[3] % 4 == 0 ? static_cast<int32_t>(i) : row.document_starts[i - 1];
  }
  return absl::OkStatus();
}

namespace {

double Element(std::span<const std::byte> bytes, DType dtype, int64_t i) {
  if (dtype == DType::kF64) return reinterpret_cast<const double*>(bytes.data())[i];
  if (dtype == DType::kF32) return reinterpret_cast<const float*>(bytes.data())[i];
  return static_cast<float>(reinterpret_cast<const BF16*>(bytes.data())[i]);
}

// Writes this rank's part, without padding. Internal where an element that is there already differs, or padding is not zero.
absl::Status Merge(const PlannedState& s, std::span<const std::byte> bytes, std::vector<double>& whole,
                   std::vector<bool>& set) {
  bool equal = true, zero = true;
  whole.resize(s.model_shape.elements());
  set.resize(whole.size());
  const auto merge = [&](int64_t local, int64_t global) {
    if (local < s.first || local >= s.first + s.count) return;
    const double v = Element(bytes, s.spec.dtype, local - s.first);
    const int64_t i = IndexWithoutPadding(s.spec.shape, s.model_shape, global);
    if (i < 0) {
      zero &= v == 0;
      return;
    }
    equal &= !set[i] || whole[i] == v;
    whole[i] = v;
    set[i] = true;
  };
  ForEachRow(s.box, s.spec.shape, [&](int64_t local, int64_t global, int64_t count) {
    for (int64_t i = 0; i < count; ++i) merge(local + i, global + i);
  });
  if (!equal) return absl::InternalError(absl::StrFormat("%s differs between its replicas", s.name));
  return zero ? absl::OkStatus() : absl::InternalError(absl::StrFormat("%s: padding is not zero", s.name));
}

std::vector<int> FirstSteps(int n) {
  std::vector<int> steps(n);
  std::iota(steps.begin(), steps.end(), 1);
  return steps;
}

struct RankWork {
  const Job& job;
  const std::vector<Plan>& plans;  // by rank
  std::span<const int> steps;
  const RowSource& rows;
  double max_loss = std::numeric_limits<double>::infinity();
  OpenRankDevice open;  // null: CPUs
  StepTrace* trace = nullptr;
};

class RankRun {
 public:
  RankRun(const RankWork& work, JobRun& run) : work_(work), run_(run) {}

  // Of rank 0, or of a process, the reports; of every rank the parameters.
  absl::Status Go(World& thread_world, bool reports) {
    CountingWorld world(thread_world);
    std::unique_ptr<Device> device = std::make_unique<CpuDevice>();
    if (work_.open != nullptr) {
      ASSIGN_OR_RETURN(device, work_.open(world.rank()));
    }
    StepTrace* const trace = world.rank() == 0 ? work_.trace : nullptr;
    const Plan& own = work_.plans[world.rank()];
    const auto plan = std::make_shared<const Plan>(trace == nullptr ? own : trace->Watch(own));
    ASSIGN_OR_RETURN(auto runner,
                     RankRunner::Create(work_.job, plan, world, *device, nullptr,
                                        trace == nullptr ? Executor::kDefaultFreed : Executor::Freed::kPoison));
    RETURN_IF_ERROR(runner->InitParameters(static_cast<uint64_t>(work_.job.config.run.seed)));
    for (const int s : work_.steps) {
      world.Reset();
      if (trace != nullptr) trace->set_step(s);
      ASSIGN_OR_RETURN(const StepReport report,
                       runner->TrainStep(s, (s - 1) * runner->rows_per_step(), work_.rows, work_.max_loss));
      if (reports) run_.steps.push_back(report);
    }
    if (reports) CountCalls(world);
    ASSIGN_OR_RETURN(const RankRunner::LossSum eval, runner->Evaluate(5, work_.rows));
    if (reports) run_.eval_nats = eval.nats, run_.eval_tokens = eval.tokens;
    RETURN_IF_ERROR(Collect(*runner));
    return runner->Close();
  }

 private:
  void CountCalls(const CountingWorld& world) {
    for (const auto& [name, kinds] : world.counts()) {
      for (size_t k = 0; k < kinds.size(); ++k) {
        if (kinds[k].calls == 0) continue;
        const std::string key = name + " " + Name(static_cast<Collective::Kind>(k));
        run_.calls[key] = kinds[k].calls;
        run_.bytes[key] = kinds[k].bytes;
      }
    }
  }

  absl::Status Collect(RankRunner& runner) {
    const std::lock_guard lock(mutex_);
    for (const PlannedState& s : runner.executor().plan().states) {
      if (s.role != Role::kParam || s.name.compare(0, 7, "bucket.") == 0) continue;
      std::vector<std::byte> bytes(runner.executor().StateBytes(s).size());
      RETURN_IF_ERROR(runner.executor().ReadState(s, bytes));
      RETURN_IF_ERROR(Merge(s, bytes, run_.parameters[s.name], run_.held[s.name]));
    }
    return absl::OkStatus();
  }

  const RankWork work_;
  JobRun& run_;
  std::mutex mutex_;
};

}  // namespace

absl::StatusOr<JobRun> RunJob(const JobConfig& config, int steps) {
  return RunJob(config, FirstSteps(steps), TableRows(config.model.vocab, 3), std::numeric_limits<double>::infinity());
}

absl::StatusOr<JobRun> RunJob(const JobConfig& config, std::span<const int> steps, const RowSource& source,
                              double max_loss, const KernelTable& kernels,
                              const std::function<void(const Job&)>& inspect, const OpenRankDevice& open,
                              StepTrace* trace) {
  ASSIGN_OR_RETURN(const Job job, CompileTraining(config, kernels));
  if (inspect != nullptr) inspect(job);
  ASSIGN_OR_RETURN(const std::vector<Plan> plans, PlanRanks(job, kernels));
  const ObjectiveRows rows(source, config.model, config.run.seed);
  JobRun run;
  RankRun ranks({job, plans, steps, rows, max_loss, open, trace}, run);
  RETURN_IF_ERROR(RunRanks(job.ranks, [&](World& world) { return ranks.Go(world, world.rank() == 0); }));
  return run;
}

absl::StatusOr<JobRun> RunJobRank(const JobConfig& config, int steps, World& world) {
  const KernelTable kernels = CpuKernels();
  ASSIGN_OR_RETURN(const Job job, CompileTraining(config, kernels));
  ASSIGN_OR_RETURN(const std::vector<Plan> plans, PlanRanks(job, kernels));
  const TableRows source(config.model.vocab, 3);
  const ObjectiveRows rows(source, config.model, config.run.seed);
  const std::vector<int> all = FirstSteps(steps);
  JobRun run;
  RETURN_IF_ERROR(RankRun({job, plans, all, rows}, run).Go(world, true));
  return run;
}

}  // namespace strata::testing
