// Trains a tiny job of two ranks, saves behind training after a step, and dies on the way if asked to.
// async_save_victim OUT STEP                   saves step STEP in OUT/checkpoints, which keeps one; exit 0 if saved
// async_save_victim OUT STEP op K              SIGKILL before the K-th operation on files
// async_save_victim OUT STEP trace RANK WORDS  under strace WORDS, attached to the thread that writes for RANK

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "core/base/status.h"
#include "core/exec/cpu_device.h"
#include "launch/data/objective_rows.h"
#include "launch/job/gather.h"
#include "launch/job/rank_runner.h"
#include "launch/job/saver.h"
#include "parallel/comm/thread_world.h"
#include "tests/testing/fault_env.h"
#include "tests/testing/small_job.h"

namespace strata {
namespace {

std::string FirstLine(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// The thread of this process that has a name; empty if there is none.
std::string ThreadNamed(const std::string& name) {
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    if (FirstLine(task.path() / "comm") == name) return task.path().filename();
  }
  return "";
}

bool IsTraced(const std::string& thread) {
  std::ifstream status("/proc/self/task/" + thread + "/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("TracerPid:")) return line != "TracerPid:\t0";
  }
  return false;
}

// Starts strace on a thread and returns when it watches; its process, or -1.
pid_t Attach(const std::string& thread, std::vector<std::string> words) {
  words.insert(words.begin(), "strace");
  words.insert(words.end(), {"-p", thread});
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    std::freopen("/dev/null", "w", stderr);
    ::execvp(argv[0], argv.data());
    ::_exit(127);
  }
  for (int i = 0; i < 10000 && child > 0; ++i) {
    if (IsTraced(thread)) return child;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return -1;
}

struct Options {
  std::string out;
  int step;
  std::string trace_rank;          // empty: none
  std::vector<std::string> words;  // of strace
};

absl::Status RunRank(Env& env, const Options& o, const Job& job, const std::vector<Plan>& plans, World& world) {
  CpuDevice device;
  ASSIGN_OR_RETURN(const auto control, world.Connect({"control", {0, 1}}));
  const auto plan = std::make_shared<const Plan>(plans[world.rank()]);
  ASSIGN_OR_RETURN(const auto runner, RankRunner::Create(job, plan, world, device, nullptr));
  ASSIGN_OR_RETURN(auto saver, Saver::Create({env, job, plans, runner->executor(), device, *control, world.rank()}));
  const testing::TableRows table(job.config.model.vocab, 3);
  const ObjectiveRows rows(table, job.config.model, 1);
  RETURN_IF_ERROR(runner->InitParameters(7));
  pid_t tracer = 0;
  if (!o.trace_rank.empty() && o.trace_rank == std::to_string(world.rank())) {
    tracer = Attach(ThreadNamed("saver." + o.trace_rank), o.words);
    if (tracer < 0) return absl::UnavailableError("strace did not attach");
  }
  bool saved = false;
  for (int step = 1; !saved; ++step) {
    RETURN_IF_ERROR(runner->TrainStep(step, (step - 1) * runner->rows_per_step(), rows).status());
    ASSIGN_OR_RETURN(const int64_t progress, AllMax(*control, saver->Progress()));
    ASSIGN_OR_RETURN(const std::optional<SaveReport> report, saver->Advance(progress));
    saved = report.has_value();
    if (step == o.step) RETURN_IF_ERROR(saver->Start(step, step * runner->rows_per_step()).status());
  }
  saver.reset();  // its thread ends, and so does strace
  if (tracer > 0) ::waitpid(tracer, nullptr, 0);
  RETURN_IF_ERROR(runner->Close());
  return control->Close();
}

absl::Status Run(Env& env, const Options& o) {
  JobConfig config = testing::SmallJob(1, 2, 1);
  config.model.layers = 1;
  config.run.out = o.out;
  config.checkpoint = {.every = 1, .keep = 1};
  const KernelTable kernels = CpuKernels();
  ASSIGN_OR_RETURN(const Job job, CompileTraining(config, kernels));
  ASSIGN_OR_RETURN(const std::vector<Plan> plans, PlanRanks(job, kernels));
  return RunRanks(job.ranks, [&](World& world) { return RunRank(env, o, job, plans, world); });
}

}  // namespace
}  // namespace strata

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  if (words.size() != 2 && words.size() < 4) return 64;
  strata::Options options{words[0], std::atoi(words[1].c_str()), "", {}};
  const bool counts = words.size() > 2 && words[2] == "op";
  std::atomic<int64_t> operations_left = counts ? std::atoll(words[3].c_str()) : -1;
  strata::testing::FaultEnv deadly([&](std::string_view, const std::string&) {
    if (--operations_left == 0) std::raise(SIGKILL);
    return absl::OkStatus();
  });
  if (words.size() > 2 && words[2] == "trace") {
    options.trace_rank = words[3];
    options.words.assign(words.begin() + 4, words.end());
  }
  const absl::Status status = strata::Run(counts ? deadly : strata::Env::Posix(), options);
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
