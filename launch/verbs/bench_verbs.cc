// bench step, gemm, attention: a job's training step on random tokens, whole and by kernel.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "core/base/philox.h"
#include "core/base/status.h"
#include "core/base/thread_pool.h"
#include "core/exec/cuda_device.h"
#include "core/exec/gpu_meter.h"
#include "core/kernels/gemm.h"
#include "launch/config/load_config.h"
#include "launch/job/back_end.h"
#include "launch/job/job_memory.h"
#include "launch/job/pipeline_profile.h"
#include "launch/job/profile.h"
#include "launch/job/rank_runner.h"
#include "launch/job/schedule_report.h"
#include "launch/job/simulation_report.h"
#include "launch/job/timeline_report.h"
#include "launch/verbs/verbs.h"
#include "models/model.h"
#include "parallel/comm/thread_world.h"

namespace strata {
namespace {

// A table of random tokens, so that making them is no part of a step. Where documents are kept apart, they are of 256 tokens
// on average.
class RandomRows final : public RowSource {
 public:
  RandomRows(int64_t rows, int64_t seq, int64_t vocab, Packing packing)
      : rows_(rows), seq_(seq), tokens_(rows * (seq + 1)), starts_(rows * seq) {
    constexpr uint32_t kDocument = 256;
    for (int64_t i = 0; packing == Packing::kIsolate && i < rows * seq; ++i) {
      const auto at = static_cast<int32_t>(i % seq);
      starts_[i] = at == 0 ? 0 : Philox(1, 1, i)[0] % kDocument == 0 ? at : starts_[i - 1];
    }
    for (size_t i = 0; i < tokens_.size(); ++i) {
      tokens_[i] = static_cast<int32_t>(Philox(1, 0, i)[0] % static_cast<uint64_t>(vocab));
    }
  }
  absl::Status Row(int64_t index, const RowSpans& row) const override {
    const int32_t* from = tokens_.data() + index % rows_ * (seq_ + 1);
    std::copy_n(starts_.data() + index % rows_ * seq_, seq_, row.document_starts.begin());
    std::copy_n(from, seq_, row.tokens.begin());
    std::copy_n(from + 1, seq_, row.targets.begin());
    std::fill(row.weights.begin(), row.weights.end(), 1.0f);
    return absl::OkStatus();
  }

 private:
  const int64_t rows_, seq_;
  std::vector<int32_t> tokens_, starts_;
};

constexpr int64_t kWarmup = 3;
constexpr int64_t kSimulated = 3;  // steps whose chunks the simulator is fed with

// Dense bf16 matrix FLOP/s by the vendor's datasheet; 0: not known.
double PeakFlops(const std::string& device) {
  constexpr std::pair<const char*, double> kPeaks[] = {{"H100 PCIe", 756e12}, {"H100", 989.4e12}, {"H200", 989.4e12},
                                                       {"H800", 989.4e12},    {"A100", 312e12},   {"B200", 2250e12}};
  for (const auto& [name, flops] : kPeaks) {
    if (absl::StrContains(device, name)) return flops;
  }
  return 0;
}

// Of the timed steps, by NVML; 0 where that cannot say.
struct Power {
  double watts = 0, limit_watts = 0, megahertz = 0;  // mean; the driver's limit; the clock right after the last step
};

class PowerWatch {
 public:
  explicit PowerWatch(const CudaDevice* gpu) {  // null: says nothing
    if (gpu == nullptr) return;
    if (absl::StatusOr<GpuMeter> meter = GpuMeter::Open(gpu->bus_id()); meter.ok()) meter_ = *std::move(meter);
  }
  void Begin() { begin_ = Now(); }
  Power End() const {
    if (!meter_) return {};
    const Reading end = Now();
    return {(end.joules - begin_.joules) / std::chrono::duration<double>(end.at - begin_.at).count(),
            meter_->LimitInWatts().value_or(0), meter_->Megahertz().value_or(0)};
  }

 private:
  struct Reading {
    std::chrono::steady_clock::time_point at;
    double joules = 0;
  };
  Reading Now() const { return {std::chrono::steady_clock::now(), meter_ ? meter_->Joules().value_or(0) : 0}; }

  std::optional<GpuMeter> meter_;
  Reading begin_;
};

struct Measured {
  std::vector<double> seconds;
  double first_loss = 0, last_loss = 0;
  int64_t device_bytes = 0;  // in use on the GPU, by the driver
  std::string device = "cpu";
  Power power;                        // of the GPU of rank 0
  std::string kernel_choices;         // CudaDevice's
  double one_rank = 0;                // tokens a second of one rank, for the scaling; 0: not asked for
  std::vector<StepProfile> profiles;  // of several steps

  double Median() const {  // of `seconds`, which are sorted
    return seconds[seconds.size() / 2];
  }
};

// The steps' work of one kind: each op and shapes of it, an average step, and their sum.
std::string WorkJson(const ProfileSummary& step, Work only, const std::string& device, size_t steps) {
  double seconds = 0, flops = 0;
  std::string rows;
  for (const ProfileRow& r : step.rows) {
    if (r.work != only) continue;
    seconds += r.seconds;
    flops += r.flops;
    absl::StrAppendFormat(&rows, "%s{\"op\": \"%s\", \"in\": \"%s\", \"calls\": %d, \"ms\": %.4f, \"tflops\": %.4g}",
                          rows.empty() ? "" : ", ", r.op, r.shapes, r.calls, 1e3 * r.seconds,
                          r.flops / r.seconds / 1e12);
  }
  return absl::StrFormat(
      "{\"engine\": \"strata\", \"device\": \"%s\", \"what\": \"%s\", \"steps\": %d, \"sum_ms\": %.3f, \"tflops\": "
      "%.4g, "
      "\"shapes\": [%s]}\n",
      device, std::string(kWorkNames[static_cast<size_t>(only)]), steps, 1e3 * seconds,
      seconds > 0 ? flops / seconds / 1e12 : 0.0, rows);
}

// The lines that speak of work of one kind, or all.
std::string ChoicesOf(const std::string& choices, const Work* only) {
  if (only == nullptr) return choices;
  const absl::string_view about = *only == Work::kGemm ? "product" : "attention";
  std::string lines;
  for (absl::string_view line : absl::StrSplit(choices, '\n', absl::SkipEmpty())) {
    if (absl::StartsWith(line, about)) absl::StrAppend(&lines, line, "\n");
  }
  return lines;
}

// Of an average step of these, of rank 0.
ProfileSummary Average(std::span<const StepProfile> profiles) {
  std::vector<Executor::TimedStep> all;
  for (const StepProfile& p : profiles) all.insert(all.end(), p[0].begin(), p[0].end());
  ProfileSummary s = Summarize(all);
  const auto n = static_cast<int>(profiles.size());
  for (double& seconds : s.seconds) seconds /= n;
  for (ProfileRow& r : s.rows) {
    r.calls /= n;
    r.seconds /= n;
    r.flops /= n;
    r.bytes /= n;
  }
  return s;
}

class Bench {
 public:
  explicit Bench(const BenchOptions& options) : options_(options) {}

  absl::Status Run(const Work* only) {
    ASSIGN_OR_RETURN(const LoadedJob loaded, LoadJobConfig(Env::Posix(), options_.config, {}, options_.set));
    const JobConfig& c = loaded.config;
    if (simulates() && c.parallel.pp == 1) {
      return absl::InvalidArgumentError("--simulate and --durations-out are of pipelines: parallel.pp is 1");
    }
    ASSIGN_OR_RETURN(const BackEnd back_end, BackEndOf(c));
    ASSIGN_OR_RETURN(const Job job, CompileTraining(c, back_end.kernels));
    ASSIGN_OR_RETURN(const std::vector<Plan> plans, PlanRanks(job, back_end.kernels));
    const int64_t profiles = only != nullptr ? options_.steps : simulates() ? kSimulated : 1;
    const RankOptions rank{std::max(1, AvailableCores() / job.ranks), profiles};
    ASSIGN_OR_RETURN(Measured m, MeasureRanks(back_end, job, plans, rank));
    if (options_.scaling) {
      ASSIGN_OR_RETURN(m.one_rank, OneRank(c, back_end, rank.threads));
    }
    const ProfileSummary summary = Average(m.profiles);
    if (!options_.trace.empty()) {
      RETURN_IF_ERROR(WriteTextAtomically(Env::Posix(), options_.trace, ChromeTrace(m.profiles.back()[0], 0)));
    }
    if (!options_.timeline.empty()) {
      ASSIGN_OR_RETURN(Timeline measured, TimelineOf(job.pipeline, m.profiles.back()));
      ASSIGN_OR_RETURN(std::vector<GanttTrack> tracks, MeasuredTracks(std::move(measured)));
      const GanttSection section{absl::StrFormat("step %d", options_.steps + kWarmup + profiles), std::move(tracks)};
      RETURN_IF_ERROR(WriteTextAtomically(Env::Posix(), options_.timeline, GanttHtml(c.run.name, {&section, 1})));
    }
    if (options_.table || only != nullptr) std::fputs(ProfileTable(summary, only).c_str(), stdout);
    if (options_.table || only != nullptr) std::fputs(ChoicesOf(m.kernel_choices, only).c_str(), stdout);
    if (only == nullptr) {
      std::string simulated;
      if (simulates()) {
        const bool overlaps = back_end.kernels.asynchronous();
        ASSIGN_OR_RETURN(simulated,
                         Simulated(job, m, overlaps ? StreamsOf(*plans[0].FindProgram("train")) : Streams::kOne));
      }
      Report(job, plans, rank.threads, m, summary, simulated);
    } else {
      std::fputs(WorkJson(summary, *only, m.device, m.profiles.size()).c_str(), stdout);
    }
    return absl::OkStatus();
  }

 private:
  bool simulates() const { return options_.simulate || !options_.durations_out.empty(); }

  struct RankOptions {
    int threads = 1;
    int64_t profiles =
        1;  // steps whose kernels are timed one by one, after the others: the chip is as hot as in training
  };
  absl::StatusOr<Measured> MeasureRanks(const BackEnd& back_end, const Job& job, const std::vector<Plan>& plans,
                                        const RankOptions& options) {
    RETURN_IF_ERROR(CheckFits(job, plans));
    Measured m;
    m.profiles.assign(static_cast<size_t>(options.profiles), StepProfile(job.ranks));
    RETURN_IF_ERROR(RunRanks(job.ranks, [&](World& world) -> absl::Status {
      ASSIGN_OR_RETURN(const std::unique_ptr<Device> device, OpenDevice(back_end, world.rank()));
      return MeasureRank(job, plans[world.rank()], world, *device, options, m);
    }));
    std::sort(m.seconds.begin(), m.seconds.end());
    return m;
  }

  // Tokens a second of one rank, on the batch of one data-parallel rank of the job and as many threads as a rank has.
  absl::StatusOr<double> OneRank(JobConfig c, const BackEnd& back_end, int threads) {
    if (options_.one_rank > 0) return options_.one_rank;
    c.batch.tokens /= c.parallel.dp;
    c.parallel = {.overlap = c.parallel.overlap};
    ASSIGN_OR_RETURN(const Job job, CompileTraining(c, back_end.kernels));
    ASSIGN_OR_RETURN(const std::vector<Plan> plans, PlanRanks(job, back_end.kernels));
    ASSIGN_OR_RETURN(const Measured m, MeasureRanks(back_end, job, plans, {threads, 0}));
    return static_cast<double>(c.batch.tokens) / m.Median();
  }

  absl::Status MeasureRank(const Job& job, const Plan& plan, World& world, Device& device, const RankOptions& options,
                           Measured& m) {
    ThreadPool pool(options.threads);
    const RandomRows rows(std::min<int64_t>(256, job.batch_rows * job.config.batch.accumulate), job.config.model.seq,
                          job.config.model.vocab, job.config.data.packing);
    const std::shared_ptr<const Plan> borrowed(std::shared_ptr<void>(), &plan);  // the profile points into it
    ASSIGN_OR_RETURN(const auto runner, RankRunner::Create(job, borrowed, world, device, &pool));
    RETURN_IF_ERROR(runner->InitParameters(static_cast<uint64_t>(job.config.run.seed)));
    const auto* const gpu = world.rank() == 0 ? dynamic_cast<const CudaDevice*>(&device) : nullptr;
    PowerWatch power(gpu);
    int64_t step = 1;
    for (; step <= options_.steps + kWarmup; ++step) {
      if (step == kWarmup + 1) power.Begin();
      const auto start = std::chrono::steady_clock::now();
      ASSIGN_OR_RETURN(const StepReport report, runner->TrainStep(step, (step - 1) * runner->rows_per_step(), rows));
      if (world.rank() != 0) continue;
      if (step > kWarmup)
        m.seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
      if (step == 1) m.first_loss = report.loss;
      m.last_loss = report.loss;
    }
    if (world.rank() == 0) m.power = power.End();
    for (StepProfile& profile : m.profiles) {  // in it, a place of this rank's own
      ASSIGN_OR_RETURN(profile[world.rank()], runner->ProfileStep(step, (step - 1) * runner->rows_per_step(), rows));
      ++step;
    }
    if (gpu != nullptr) {
      m.device = gpu->description();
      m.kernel_choices = gpu->kernel_choices();
      m.device_bytes = gpu->used_bytes();
    }
    return runner->Close();
  }

  // The step beside the simulator's: prints a table, returns members of the JSON line.
  absl::StatusOr<std::string> Simulated(const Job& job, const Measured& m, Streams streams) const {
    const JobPipeline& p = job.pipeline;
    ASSIGN_OR_RETURN(const PipelineProfile profile,
                     ProfileOf(p, m.profiles, ModelledStages(job.config, p.layout, 1e12)));
    ASSIGN_OR_RETURN(const StepComparison c, CompareStep(p, profile, streams, m.Median()));
    std::fputs(ComparisonTable(p, profile, c).c_str(), stdout);
    if (!options_.durations_out.empty()) {
      RETURN_IF_ERROR(
          WriteTextAtomically(Env::Posix(), options_.durations_out, DurationsFile(profile, BoundaryBytes(job.config))));
    }
    return ComparisonJson(c);
  }

  void Report(const Job& job, const std::vector<Plan>& plans, int threads, const Measured& m,
              const ProfileSummary& summary, const std::string& simulated) {
    const JobConfig& c = job.config;
    const double median = m.Median(), tokens = static_cast<double>(c.batch.tokens);
    const double rate = FlopsPerToken(c.model) * tokens / median, peak = PeakFlops(m.device) * job.ranks;
    const bool gpu = m.device != "cpu";
    int64_t planned = gpu ? DeviceBytes(plans[0]) : OutsideBytes(job);  // of the GPU of rank 0, or of this machine
    for (const Plan& p : plans) planned += gpu ? 0 : p.arena_bytes[0];
    std::string text = absl::StrFormat(
        "{\"engine\": \"strata\", \"device\": \"%s\", \"gemm\": \"%s\", \"ranks\": %d, \"threads\": %d, \"step_s\": "
        "%.6f, "
        "\"min_s\": %.6f, \"max_s\": %.6f, \"tokens_per_s\": %.1f, \"gflops\": %.1f, ",
        m.device, gpu ? "cuBLASLt" : DescribeGemm(c.precision.compute), job.ranks, threads, median, m.seconds.front(),
        m.seconds.back(), tokens / median, rate / 1e9);
    if (peak > 0) {
      absl::StrAppendFormat(
          &text,
          "\"mfu\": %.4f, \"mfu_formula\": \"(6 * %d matmul weights + %s L E S) * tokens / step_s / %.1f "
          "TFLOP/s\", ",
          rate / peak, ModelOf(c.model.arch).size(c.model).matmul_weights,
          ModelOf(c.model.arch).attention == AttentionMask::kCausal ? "6" : "12", peak / 1e12);
    }
    double busy = 0;  // one after the other; with overlap, more than the step
    for (size_t w = 0; w < std::size(kWorkNames); ++w) {
      busy += summary.seconds[w];
      absl::StrAppendFormat(&text, "\"%s_s\": %.6f, ", std::string(kWorkNames[w]), summary.seconds[w]);
    }
    absl::StrAppendFormat(&text, "\"exposed_communication_s\": %.6f, \"idle_s\": %.6f, ",
                          ExposedSeconds(m.profiles.back()[0]), std::max(0.0, median - busy));
    if (m.power.watts > 0) {
      absl::StrAppendFormat(&text, "\"watts\": %.1f, \"power_limit_watts\": %.0f, \"sm_mhz\": %.0f, ", m.power.watts,
                            m.power.limit_watts, m.power.megahertz);
    }
    if (m.one_rank > 0) {
      absl::StrAppendFormat(&text, "\"one_rank_tokens_per_s\": %.1f, \"scaling\": %.4f, ", m.one_rank,
                            tokens / median / (job.ranks * m.one_rank));
    }
    text += simulated;
    absl::StrAppendFormat(&text,
                          "\"first_loss\": %.4f, \"last_loss\": %.4f, \"planned_bytes\": %d, \"peak_bytes\": %d}\n",
                          m.first_loss, m.last_loss, planned, gpu ? m.device_bytes : PeakResidentBytes());
    std::fputs(text.c_str(), stdout);
  }

  const BenchOptions& options_;
};

}  // namespace

absl::Status RunBenchStep(const BenchOptions& options) { return Bench(options).Run(nullptr); }
absl::Status RunBenchGemm(const BenchOptions& options) {
  constexpr Work kOnly = Work::kGemm;
  return Bench(options).Run(&kOnly);
}
absl::Status RunBenchAttention(const BenchOptions& options) {
  constexpr Work kOnly = Work::kAttention;
  return Bench(options).Run(&kOnly);
}

}  // namespace strata
