// Ranks that are processes with a GPU each: what is said of one that is killed or stopped, and that jobs start and stop.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <cstdlib>
#include <filesystem>
#include <thread>

#include "tests/launch/small_run.h"
#include "tests/mpi/spawn.h"
#include "tests/testing/gpu.h"
#include "tests/testing/strata_program.h"

namespace strata::testing {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;

constexpr auto kLook = std::chrono::milliseconds(20);

bool HaveMpirun() { return std::system("command -v mpirun >/dev/null 2>&1") == 0; }  // NOLINT(concurrency-mt-unsafe)

class GpuProcesses : public ::testing::Test {
 protected:
  GpuProcesses() { run_.Load(); }
  ~GpuProcesses() override {
    for (pid_t pid : Find(config())) ::kill(pid, SIGKILL);
  }

  std::string config() const { return run_.dir().path("run.toml"); }
  std::vector<std::string> Command(int64_t steps, int64_t hang_timeout) const {
    return {StrataProgram(),
            "launch",
            "-n",
            "2",
            "--",
            "train",
            config(),
            "--set=parallel.dp=2",
            "--set=run.device=\"cuda\"",
            "--set=precision.compute=\"float32\"",
            "--set=run.deterministic=true",  // no algorithms are tried, so that ranks are soon at work
            absl::StrFormat("--set=guard.hang_timeout=%d", hang_timeout),
            absl::StrFormat("--set=schedule.steps=%d", steps)};
  }
  static bool WaitForSteps(const Process& launch) {
    for (int i = 0; i < 3000 && launch.Output().find("\nstep 5/") == std::string::npos; ++i) {
      std::this_thread::sleep_for(kLook);
    }
    EXPECT_THAT(launch.Output(), HasSubstr("\nstep 5/"));
    return launch.Output().find("\nstep 5/") != std::string::npos;
  }
  void Signal(int rank, int signal) const {
    const std::vector<pid_t> found = Find(" train " + config(), absl::StrFormat("OMPI_COMM_WORLD_RANK=%d", rank));
    int sent = 0;
    for (pid_t pid : found) {
      std::error_code error;  // not the supervisor, whose words hold those of the rank
      const absl::StatusOr<std::string> words = ReadKernelText(absl::StrFormat("/proc/%d/cmdline", pid));
      if (!words.ok() || words->find("launch-rank") != std::string::npos) continue;
      ::kill(pid, signal);
      ++sent;
    }
    EXPECT_EQ(sent, 1);
  }

  SmallRun run_;
};

#define STRATA_NEEDS_PROCESSES() \
  STRATA_NEEDS_GPUS(2);          \
  if (!HaveMpirun()) GTEST_SKIP() << "mpirun starts the ranks; there is none"

TEST_F(GpuProcesses, AKilledRankIsTheCause) {
  STRATA_NEEDS_PROCESSES();
  Process launch(Command(1'000'000, 60));
  ASSERT_TRUE(WaitForSteps(launch)) << launch.Output();
  Signal(1, SIGKILL);
  EXPECT_EQ(launch.Wait(std::chrono::seconds(60)), 128 + SIGKILL) << launch.Output();
  EXPECT_THAT(launch.Output(), HasSubstr("rank 1 failed first: killed by signal 9 (Killed)"));
  EXPECT_THAT(launch.Output(), ContainsRegex("\nrank 1 has been [a-z].* for [0-9.]+ s; its process [0-9]+ has ended"));
}

TEST_F(GpuProcesses, AStoppedRankEndsTheJobWithinItsDeadline) {
  STRATA_NEEDS_PROCESSES();
  Process launch(Command(1'000'000, 5));
  ASSERT_TRUE(WaitForSteps(launch)) << launch.Output();
  Signal(1, SIGSTOP);
  const auto begun = std::chrono::steady_clock::now();
  EXPECT_EQ(launch.Wait(std::chrono::seconds(60)), 124) << launch.Output();
  EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(30));
  EXPECT_THAT(launch.Output(),
              ContainsRegex("rank 1 (hangs: communicator .* has not ended for|did not arrive within) 5000 ms"));
  EXPECT_THAT(launch.Output(), ContainsRegex("rank 1 has .*been [a-z].* for [0-9.]+ s; its process [0-9]+ is stopped"));
}

// Over MPI alone: collectives go through pinned memory.
TEST_F(GpuProcesses, TrainWithoutNccl) {
  STRATA_NEEDS_PROCESSES();
  double loss[2] = {};
  for (const bool host : {false, true}) {
    std::filesystem::remove_all(run_.out());
    std::vector<std::string> command = Command(5, 60);
    command.emplace_back(host ? "--set=parallel.transport=\"host\"" : "--set=parallel.transport=\"nccl\"");
    Process launch(command);
    ASSERT_EQ(launch.Wait(std::chrono::seconds(100)), 0) << launch.Output();
    const std::string output = launch.Output();
    const size_t at = output.find("final: validation loss ");
    ASSERT_NE(at, std::string::npos) << output;
    loss[host ? 1 : 0] = std::atof(output.c_str() + at + 23);
  }
  EXPECT_GT(loss[0], 0);
  EXPECT_NEAR(loss[0], loss[1], 1e-3);
}

TEST_F(GpuProcesses, StartAndStop) {
  STRATA_NEEDS_PROCESSES();
  const char* const given = std::getenv("STRATA_STARTS");
  const int starts = given == nullptr ? 1 : std::max(2, std::atoi(given) / 10);
  for (int i = 0; i < starts; ++i) {
    const bool stopped = i % 2 == 0;  // TrainWithoutNccl goes to the end
    std::filesystem::remove_all(run_.out());
    Process launch(Command(stopped ? 1'000'000 : 5, 60));
    if (stopped) {
      ASSERT_TRUE(WaitForSteps(launch)) << launch.Output();
      ::kill(launch.pid(), SIGTERM);
    }
    ASSERT_EQ(launch.Wait(std::chrono::seconds(100)), stopped ? 75 : 0) << i << ": " << launch.Output();
  }
}

}  // namespace
}  // namespace strata::testing
