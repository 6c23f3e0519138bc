#include "launch/job/trainer.h"

#include <array>
#include <chrono>
#include <cmath>
#include <optional>

#include "absl/strings/str_format.h"
#include "checkpoint/catalog.h"
#include "core/base/status.h"
#include "core/base/thread_pool.h"
#include "core/comm/rank_ledger.h"
#include "core/exec/cuda_device.h"
#include "launch/config/print_config.h"
#include "launch/data/loader.h"
#include "launch/data/objective_rows.h"
#include "launch/data/prefetch.h"
#include "launch/data/training_data.h"
#include "launch/job/back_end.h"
#include "launch/job/checkpoint_io.h"
#include "launch/job/gather.h"
#include "launch/job/hf_weights.h"
#include "launch/job/interrupt.h"
#include "launch/job/job_memory.h"
#include "launch/job/loss_guard.h"
#include "launch/job/open_inputs.h"
#include "launch/job/rank_runner.h"
#include "launch/job/saver.h"
#include "launch/metrics/progress.h"
#include "launch/metrics/sinks.h"
#include "launch/rendezvous/cores.h"
#include "launch/rendezvous/environment.h"
#include "launch/rendezvous/run_world.h"
#include "models/hf/kept_files.h"

namespace strata {
namespace {

constexpr char kUntrained[] = "untrained", kImported[] = "imported";  // weights of an evaluation before the first step

using Clock = std::chrono::steady_clock;
double Seconds(Clock::time_point since) { return std::chrono::duration<double>(Clock::now() - since).count(); }

// All that the ranks of a run share; read-only while they run.
struct Run {
  Env& env;
  BackEnd back_end;  // its kernels are the plans'
  Job job;
  std::vector<Plan> plans;
  TrainingData train;
  std::optional<Loader> valid;
  std::string config_text;
  std::string resume;  // as of TrainOptions
  ProcessPlace place;

  int ranks_here() const { return place.alone() ? job.ranks : place.local_size; }  // on this machine
  std::string CheckpointRoot() const { return job.config.run.out + "/checkpoints"; }
};

absl::StatusOr<std::string> FindResume(Env& env, const std::string& root, const std::string& resume) {
  if (resume == "never") return "";
  if (resume != "auto") return resume;
  const absl::StatusOr<NewestValid> newest = FindNewestValid(env, root);
  if (absl::IsNotFound(newest.status())) {
    const absl::StatusOr<std::vector<CheckpointEntry>> all = ListCheckpoints(env, root);
    if (!all.ok() || all->empty()) return "";
    return newest.status();  // there are checkpoints, and none is whole: do not silently start anew
  }
  if (!newest.ok()) return newest.status();
  for (const std::string& why : newest->skipped) std::fprintf(stderr, "skipped %s\n", why.c_str());
  return newest->path;
}

// One rank's part of a run. Rank 0 prints and logs.
class RankTraining {
 public:
  RankTraining(const Run& run, World& world)
      : run_(run),
        config_(run.job.config),
        world_(world),
        rows_(run.train),
        objective_rows_(rows_, config_.model, config_.run.seed),
        guard_(run.job.config.guard),
        progress_(stdout) {}

  absl::Status Go() {
    std::vector<int> everyone;
    for (int r = 0; r < world_.size(); ++r) everyone.push_back(r);
    Say("starting");
    ASSIGN_OR_RETURN(control_, world_.Connect({"control", everyone}));
    ASSIGN_OR_RETURN(const int cores, CoresOfRank(*control_));
    pool_.emplace(cores);
    ASSIGN_OR_RETURN(device_, OpenDevice(run_.back_end, run_.place.alone() ? world_.rank() : run_.place.local_rank));
    Say("reserving its memory");
    const auto plan = std::make_shared<const Plan>(run_.plans[world_.rank()]);
    ASSIGN_OR_RETURN(runner_, RankRunner::Create(run_.job, plan, world_, *device_, &*pool_));
    if (first() && !runner_->note().empty()) std::fprintf(stderr, "note: %s\n", runner_->note().c_str());
    ASSIGN_OR_RETURN(saver_, Saver::Create({run_.env, run_.job, run_.plans, runner_->executor(), *device_, *control_,
                                            world_.rank()}));
    RETURN_IF_ERROR(Prepare());
    RETURN_IF_ERROR(Start());
    if (config_.data.prefetch > 0) {
      prefetch_.emplace(objective_rows_, RowOrder{next_sample_, runner_->rows_per_step(), runner_->RowOffsets()},
                        config_.data.prefetch, config_.model.seq);
    }
    if (first() && resume_from_.empty()) RETURN_IF_ERROR(OpenLog());
    if (resume_from_.empty()) RETURN_IF_ERROR(Evaluate(config_.model.from.empty() ? kUntrained : kImported));
    start_ = Clock::now();
    for (int64_t step = first_step_; step <= config_.schedule.steps; ++step) RETURN_IF_ERROR(Step(step));
    if (first()) progress_.Finish();
    RETURN_IF_ERROR(Evaluate("final"));
    RETURN_IF_ERROR(begun_save_ == done_steps_ ? FinishSaves() : SaveNow());
    if (first()) ReportEnd();
    if (log_ != nullptr) RETURN_IF_ERROR(log_->Close());
    RETURN_IF_ERROR(runner_->Close());
    return control_->Close();
  }

 private:
  bool first() const { return world_.rank() == 0; }
  void Say(std::string_view what) {
    if (RankLedger* ledger = world_.ledger()) ledger->activity(world_.rank()).Set(what);
  }

  absl::Status OpenLog() {
    ASSIGN_OR_RETURN(log_, OpenSinks(run_.env, config_, first_step_ - 1));
    return absl::OkStatus();
  }

  // Rank 0 looks for the checkpoint to go on from, writes the config, and tells the others.
  absl::Status Prepare() {
    const auto prepare = [&]() -> absl::Status {
      ASSIGN_OR_RETURN(resume_from_, FindResume(run_.env, run_.CheckpointRoot(), run_.resume));
      RETURN_IF_ERROR(run_.env.MakeDirs(config_.run.out));
      return WriteTextAtomically(run_.env, config_.run.out + "/config.toml", run_.config_text);
    };
    RETURN_IF_ERROR(AgreeOn(*control_, first() ? prepare() : absl::OkStatus()));
    ASSIGN_OR_RETURN(resume_from_, BroadcastText(*control_, resume_from_));
    return absl::OkStatus();
  }

  absl::Status Start() {
    Say(resume_from_.empty() ? "making its parameters" : "loading a checkpoint");
    if (resume_from_.empty()) {
      if (config_.model.from.empty()) return runner_->InitParameters(static_cast<uint64_t>(config_.run.seed));
      return AgreeOn(*control_, Import());
    }
    const absl::Status loaded = [&]() -> absl::Status {
      ASSIGN_OR_RETURN(CheckpointReader reader, CheckpointReader::Open(run_.env, resume_from_));
      // Weights of step 0, such as convert writes, have no moments yet.
      const LoadFor purpose = reader.step() == 0 ? LoadFor::kForward : LoadFor::kTraining;
      RETURN_IF_ERROR(LoadStates(reader, run_.plans, runner_->executor(), purpose));
      first_step_ = reader.step() + 1;
      done_steps_ = reader.step();
      next_sample_ = reader.meta().next_sample;
      saved_step_ = begun_save_ = reader.step();
      saved_path_ = resume_from_;
      return absl::OkStatus();
    }();
    RETURN_IF_ERROR(AgreeOn(*control_, loaded));
    if (first()) {
      RETURN_IF_ERROR(OpenLog());
      progress_.Print(
          absl::StrFormat("resumed %s: step %d of %d", resume_from_, first_step_ - 1, config_.schedule.steps));
    }
    return absl::OkStatus();
  }

  // Weights of another model, which each rank reads its part of; rank 0 keeps what is needed to write them back in its form.
  absl::Status Import() {
    const std::string folder = HfFolderOf(config_.model.from);
    ASSIGN_OR_RETURN(const HfModel model, HfModel::Open(run_.env, folder));
    if (first()) RETURN_IF_ERROR(KeepHfFiles(run_.env, folder, model, config_.run.out + "/" + kKeptFolder));
    return LoadHfWeights(model, runner_->executor());
  }

  absl::Status Step(int64_t step) {
    const auto begun = Clock::now();
    const RowSource& rows = prefetch_ ? static_cast<const RowSource&>(*prefetch_) : objective_rows_;
    ASSIGN_OR_RETURN(const StepReport report, runner_->TrainStep(step, next_sample_, rows, guard_.MaxLoss()));
    RETURN_IF_ERROR(Guard(step, report));
    next_sample_ += runner_->rows_per_step();
    done_steps_ = step;
    const double step_s = Seconds(begun);
    since_log_.steps_s += step_s;
    since_log_.data_wait_s += report.data_wait_s;
    const double rate = static_cast<double>(config_.batch.tokens) / step_s;
    smooth_rate_ = smooth_rate_ == 0 ? rate : 0.9 * smooth_rate_ + 0.1 * rate;
    Say("writing its logs");
    if (first()) RETURN_IF_ERROR(Log(step, report, step_s));
    Say("working between steps");
    const bool last = step == config_.schedule.steps;
    if (config_.eval.every > 0 && step % config_.eval.every == 0 && !last) {
      RETURN_IF_ERROR(Evaluate(absl::StrFormat("step %d", step)));
    }
    std::array<int64_t, 2> agreed = {InterruptGuard::Requested() ? 1 : 0, saver_->Progress()};
    RETURN_IF_ERROR(AllMax(*control_, agreed));
    const auto [interrupted, progress] = agreed;
    ASSIGN_OR_RETURN(const std::optional<SaveReport> saved, saver_->Advance(progress));
    if (saved) RETURN_IF_ERROR(LogSaved(*saved));
    if (interrupted != 0 || (config_.checkpoint.every > 0 && step % config_.checkpoint.every == 0)) {
      RETURN_IF_ERROR(interrupted == 0 && saver_->has_buffers() ? SaveBehind() : SaveNow());
    }
    if (interrupted == 0 || last) return absl::OkStatus();
    return absl::CancelledError(
        absl::StrFormat("interrupted at step %d, saved %s; the same command goes on from there", step, saved_path_));
  }

  absl::Status Guard(int64_t step, const StepReport& report) {
    const absl::StatusOr<std::string> skipped =
        guard_.Judge(step, report, [&] { return run_.train.Describe(next_sample_, runner_->rows_per_step()); });
    if (!skipped.ok()) {
      RETURN_IF_ERROR(FinishSaves());  // all ranks judge alike
      const std::string saved = saved_step_ < 0 ? "no checkpoint is saved yet"
                                                : absl::StrFormat("the last checkpoint is of step %d", saved_step_);
      return absl::InternalError(absl::StrFormat("%s; %s", std::string(skipped.status().message()), saved));
    }
    if (skipped->empty() || !first()) return absl::OkStatus();
    progress_.Print(*skipped);
    return log_->Write(std::vector<Metric>{{"step", step},
                                           {"skipped", std::string_view(*skipped)},
                                           {"first_sample", next_sample_},
                                           {"samples", runner_->rows_per_step()}});
  }

  absl::Status Log(int64_t step, const StepReport& r, double step_s) {
    const bool last = step == config_.schedule.steps;
    if (step % config_.log.every != 0 && step != first_step_ && !last) return absl::OkStatus();
    const double eta =
        static_cast<double>(config_.schedule.steps - step) * static_cast<double>(config_.batch.tokens) / smooth_rate_;
    const double data_wait = 100 * since_log_.data_wait_s / since_log_.steps_s;
    since_log_ = {};
    progress_.Update({.step = step,
                      .steps = config_.schedule.steps,
                      .loss = r.loss,
                      .tokens_per_s = smooth_rate_,
                      .data_wait = data_wait,
                      .eta_s = eta});
    return log_->Write(std::vector<Metric>{{"step", step},
                                           {"loss", r.loss},
                                           {"lr", r.lr},
                                           {"grad_norm", r.grad_norm},
                                           {"tokens", r.tokens},
                                           {"step_s", step_s},
                                           {"data_wait", data_wait},
                                           {"tokens_per_s", static_cast<double>(config_.batch.tokens) / step_s}});
  }

  absl::Status Evaluate(const std::string& when) {
    if (!run_.valid) return absl::OkStatus();
    int64_t rows = run_.valid->num_windows();
    if (config_.eval.batches > 0) rows = std::min(rows, config_.eval.batches * run_.job.batch_rows);
    const WindowRows windows(*run_.valid);
    ASSIGN_OR_RETURN(const RankRunner::LossSum sum,
                     runner_->Evaluate(rows, ObjectiveRows(windows, config_.model, config_.run.seed)));
    if (!first()) return absl::OkStatus();
    const double loss = sum.nats / static_cast<double>(sum.tokens);
    progress_.Print(absl::StrFormat("%s: validation loss %.4f nats a token on %d tokens%s", when, loss, sum.tokens,
                                    when == kUntrained || when == kImported
                                        ? absl::StrFormat(" (ln(vocab) = %.4f)", std::log(config_.model.vocab))
                                        : ""));
    return log_->Write(std::vector<Metric>{{"step", done_steps_}, {"valid_loss", loss}, {"valid_tokens", sum.tokens}});
  }

  // Of the step that was done last; training goes on while it is written.
  absl::Status SaveBehind() {
    Say("copying what is saved");
    ASSIGN_OR_RETURN(const bool begun, saver_->Start(done_steps_, next_sample_));
    if (begun) {
      begun_save_ = done_steps_;
      return absl::OkStatus();
    }
    if (done_steps_ == config_.schedule.steps) return absl::OkStatus();  // the end saves it
    ++left_out_;
    if (!first()) return absl::OkStatus();
    progress_.Print(
        absl::StrFormat("step %d is not saved: the two saves before it are still being written", done_steps_));
    return log_->Write(std::vector<Metric>{{"step", done_steps_}, {"saves_left_out", left_out_}});
  }

  absl::Status SaveNow() {
    Say("saving a checkpoint");
    begun_save_ = done_steps_;
    ASSIGN_OR_RETURN(const std::vector<SaveReport> saved, saver_->SaveNow(done_steps_, next_sample_));
    for (const SaveReport& report : saved) RETURN_IF_ERROR(LogSaved(report));
    return absl::OkStatus();
  }

  absl::Status FinishSaves() {
    Say("saving a checkpoint");
    ASSIGN_OR_RETURN(const std::vector<SaveReport> saved, saver_->Finish());
    for (const SaveReport& report : saved) RETURN_IF_ERROR(LogSaved(report));
    return absl::OkStatus();
  }

  absl::Status LogSaved(const SaveReport& r) {
    saved_step_ = r.step;
    saved_path_ = r.path;
    if (!first()) return absl::OkStatus();
    return log_->Write(std::vector<Metric>{
        {"step", r.step}, {"checkpoint", std::string_view(r.path)}, {"save_s", r.save_s}, {"stall_s", r.stall_s}});
  }

  void ReportEnd() {
    progress_.Print(absl::StrFormat("trained %d steps in %s, %s tokens/s", config_.schedule.steps - first_step_ + 1,
                                    FormatDuration(Seconds(start_)), FormatRate(smooth_rate_)));
    if (left_out_ > 0) {
      progress_.Print(absl::StrFormat("%d saves were left out: the disk is slower than checkpoint.every", left_out_));
    }
    progress_.Print(MemoryUsed());
    progress_.Print(absl::StrFormat("checkpoint %s\nlogs in %s", saved_path_, config_.run.out));
  }

  // Planned and measured, of this process, or of this rank's GPU.
  std::string MemoryUsed() {
    const auto human = [](int64_t bytes) { return HumanBytes(static_cast<double>(bytes)); };
    if (const auto* gpu = dynamic_cast<const CudaDevice*>(device_.get())) {
      const Plan& plan = run_.plans[world_.rank()];
      const int64_t arena = plan.arena_bytes[static_cast<int>(Tier::kDevice)];
      return absl::StrFormat("memory of the GPU: planned %s (arena %s, exact; outside %s, estimated), in use %s",
                             human(DeviceBytes(plan)), human(arena), human(DeviceBytes(plan) - arena),
                             human(gpu->used_bytes()));
    }
    int64_t arenas = 0, buffers = 0;
    const std::vector<int64_t> buffer_bytes = SaveBufferBytes(run_.job, run_.plans);
    for (size_t r = 0; r < run_.plans.size(); ++r) {
      if (!run_.place.alone() && static_cast<int>(r) != world_.rank()) continue;
      arenas += run_.plans[r].arena_bytes[0];
      buffers += buffer_bytes[r];
    }
    const int64_t outside = OutsideBytes(run_.job);
    return absl::StrFormat(
        "memory: planned %s (arenas %s, exact; save buffers %s, exact; outside %s, estimated), measured peak %s",
        human(arenas + buffers + outside), human(arenas), human(buffers), human(outside), human(PeakResidentBytes()));
  }

  const Run& run_;
  const JobConfig& config_;
  World& world_;
  const TrainRows rows_;
  const ObjectiveRows objective_rows_;
  std::optional<PrefetchRows> prefetch_;
  LossGuard guard_;
  Progress progress_;
  std::optional<ThreadPool> pool_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<RankRunner> runner_;
  std::unique_ptr<Communicator> control_;
  std::unique_ptr<Saver> saver_;  // ends before what it uses
  std::string resume_from_;       // a checkpoint's folder, or empty
  std::unique_ptr<LogSink> log_;  // rank 0
  int64_t first_step_ = 1, done_steps_ = 0, next_sample_ = 0;
  int64_t begun_save_ = -1, saved_step_ = -1,
          left_out_ = 0;  // steps of the last save that was begun, that was committed
  std::string saved_path_;
  struct {
    double steps_s = 0, data_wait_s = 0;
  } since_log_;  // of the steps since the last logged one
  double smooth_rate_ = 0;
  Clock::time_point start_;
};

}  // namespace

absl::Status Train(Env& env, const LoadedJob& loaded, const TrainOptions& options) {
  const JobConfig& c = loaded.config;
  ASSIGN_OR_RETURN(JobInputs inputs, OpenInputs(env, loaded, {.data = true}));
  ASSIGN_OR_RETURN(BackEnd back_end, BackEndOf(c));
  ASSIGN_OR_RETURN(Job job, CompileTraining(c, back_end.kernels));
  ASSIGN_OR_RETURN(const ProcessPlace place, ReadPlace(EnvironmentVariables()));
  Transport& transport = job.config.parallel.comm.transport;
  // Processes do not reach each other's memory, and what is planned for copies between peers takes more of it.
  if (!place.alone() && transport == Transport::kAuto) transport = Transport::kNccl;
  ASSIGN_OR_RETURN(std::vector<Plan> plans, PlanRanks(job, back_end.kernels));
  Run run{env,
          std::move(back_end),
          std::move(job),
          std::move(plans),
          *std::move(inputs.train),
          std::move(inputs.valid),
          PrintConfig(c, loaded.provenance),
          options.resume,
          place};
  const size_t here = std::min(run.plans.size(), static_cast<size_t>(run.ranks_here()));
  RETURN_IF_ERROR(CheckFits(run.job, std::span(run.plans).first(here)));
  const InterruptGuard interrupts;
  return RunWorld(place, run.job.ranks, std::chrono::seconds(c.guard.hang_timeout),
                  [&](World& world) { return RankTraining(run, world).Go(); });
}

}  // namespace strata
