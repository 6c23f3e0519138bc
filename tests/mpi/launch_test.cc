// `strata launch`: exit codes, logs of each rank, killed, hung and interrupted jobs; and that nothing is left over.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <thread>

#include "absl/algorithm/container.h"
#include "absl/strings/str_join.h"
#include "checkpoint/catalog.h"
#include "tests/launch/small_run.h"
#include "tests/mpi/spawn.h"

namespace strata {
namespace {

using ::testing::ContainsRegex;
using testing::Find;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using testing::Process;

constexpr auto kLook = std::chrono::milliseconds(20);

class LaunchTest : public ::testing::Test {
 protected:
  LaunchTest() { run_.Load(); }
  // Of every process of the job, and of no other one.
  ~LaunchTest() override {
    for (int i = 0; i < 100 && !Find(config()).empty(); ++i) std::this_thread::sleep_for(kLook);
    EXPECT_THAT(Find(config()), IsEmpty()) << "processes are left over";
    for (pid_t pid : Find(config())) ::kill(pid, SIGKILL);
  }

  std::string config() const { return run_.dir().path("run.toml"); }

  std::vector<std::string> Command(const std::vector<std::string>& options, int64_t steps,
                                   const std::vector<std::string>& more = {}) const {
    std::vector<std::string> command = {STRATA_BINARY, "launch"};
    command.insert(command.end(), options.begin(), options.end());
    const std::vector<std::string> train = {"--",
                                            "train",
                                            config(),
                                            "--set=parallel.dp=2",
                                            "--set=parallel.tp=2",
                                            "--set=guard.hang_timeout=60",
                                            absl::StrFormat("--set=schedule.steps=%d", steps)};
    command.insert(command.end(), train.begin(), train.end());
    command.insert(command.end(), more.begin(), more.end());
    return command;
  }

  // Until rank 0 has said that it did some steps.
  static void WaitForSteps(const std::function<std::string()>& output) {
    const auto steps = [&] {
      const std::string text = output();
      int count = 0;
      for (size_t at = 0; (at = text.find("\nstep ", at)) != std::string::npos; ++at) ++count;
      return count;
    };
    for (int i = 0; i < 500 && steps() < 5; ++i) std::this_thread::sleep_for(kLook);
    ASSERT_GE(steps(), 5) << output().substr(0, 1000);
  }
  static void WaitForSteps(const Process& launch) {
    WaitForSteps([&] { return launch.Output(); });
  }

  // A save runs beside the steps: the next ones may end before it.
  void WaitForCheckpoint() const {
    const auto saved = [&] {
      const auto all = ListCheckpoints(Env::Posix(), run_.out() + "/checkpoints");
      return all.ok() && absl::c_any_of(*all, [](const CheckpointEntry& entry) { return entry.committed; });
    };
    for (int i = 0; i < 500 && !saved(); ++i) std::this_thread::sleep_for(kLook);
    ASSERT_TRUE(saved());
  }

  pid_t Rank(int rank) const {
    const std::vector<pid_t> found =
        Find(" strata train " + config(), absl::StrFormat("OMPI_COMM_WORLD_RANK=%d", rank));
    EXPECT_EQ(found.size(), 1u) << "rank " << rank;
    return found.empty() ? -1 : found[0];
  }

  std::string Log(int rank) const {
    const auto text = ReadText(Env::Posix(), run_.out() + absl::StrFormat("/logs/rank-%05d.log", rank));
    return text.ok() ? *text : text.status().ToString();
  }

  SmallRun run_;
};

TEST_F(LaunchTest, TrainsShowsRankZeroAndKeepsALogOfEach) {
  Process launch(Command({"-n", "4"}, 6));
  EXPECT_EQ(launch.Wait(), 0) << launch.Output();
  EXPECT_THAT(launch.Output(), HasSubstr("trained 6 steps"));
  EXPECT_THAT(Log(0), HasSubstr("trained 6 steps"));
  for (int r = 1; r < 4; ++r) EXPECT_THAT(Log(r), HasSubstr(absl::StrFormat("== rank %d of 4: strata train", r)));
  EXPECT_THAT(launch.Output(), Not(HasSubstr("rank 1 of 4")));

  Process again(Command({"--show", "all", "--log-dir", run_.dir().path("mine")}, 6));
  EXPECT_EQ(again.Wait(), 0) << again.Output();
  EXPECT_THAT(again.Output(), HasSubstr("[3] == rank 3 of 4"));
  EXPECT_THAT(again.Output(), ContainsRegex("\\[0\\] resumed .*step 6 of 6"));
  EXPECT_TRUE(Env::Posix().Exists(run_.dir().path("mine/rank-00003.log")));
}

TEST_F(LaunchTest, DryRunPrintsTheCommandAndStartsNothing) {
  Process launch(Command({"--dry-run"}, 6));
  EXPECT_EQ(launch.Wait(), 0);
  EXPECT_THAT(launch.Output(),
              HasSubstr("mpirun -n 4 " STRATA_BINARY " launch-rank --log-dir " + run_.out() + "/logs"));
  EXPECT_THAT(launch.Output(), HasSubstr("-- train " + config() + " --set=parallel.dp=2"));
  EXPECT_FALSE(Env::Posix().Exists(run_.out()));
}

TEST_F(LaunchTest, MistakesExit64) {
  Process ranks(Command({"-n", "3"}, 6));
  EXPECT_EQ(ranks.Wait(), 64);
  EXPECT_THAT(ranks.Output(), HasSubstr("-n 3: the config has 4 ranks"));
  Process key(Command({}, 6, {"--set=optim.weigth_decay=1"}));
  EXPECT_EQ(key.Wait(), 64);
  EXPECT_THAT(key.Output(), HasSubstr("did you mean `weight_decay`"));
  Process inside(Command({}, 6), {"OMPI_COMM_WORLD_RANK=0", "OMPI_COMM_WORLD_SIZE=2"});
  EXPECT_EQ(inside.Wait(), 64);
  EXPECT_FALSE(Env::Posix().Exists(run_.out()));

  Process late(Command({}, 6, {"--resume", "/nowhere"}));  // found by the ranks
  EXPECT_EQ(late.Wait(), 64) << late.Output();
  EXPECT_THAT(late.Output(), HasSubstr("rank 0: /nowhere/manifest.json"));
}

TEST_F(LaunchTest, AKilledRankIsTheCauseAndTheOthersAreFolded) {
  Process launch(Command({}, 1'000'000, {"--set=checkpoint.every=3"}));
  WaitForSteps(launch);
  WaitForCheckpoint();
  ::kill(Rank(2), SIGKILL);
  EXPECT_EQ(launch.Wait(), 128 + SIGKILL) << launch.Output();
  EXPECT_THAT(launch.Output(), HasSubstr("rank 2 failed first: killed by signal 9 (Killed)\nranks 0, 1, 3: stopped"));
  EXPECT_THAT(launch.Output(), ContainsRegex("\nrank 2 has been [a-z].* for [0-9.]+ s; its process [0-9]+ has ended"));
  EXPECT_THAT(launch.Output(), HasSubstr("last checkpoint: " + run_.out() + "/checkpoints/step-"));
  EXPECT_THAT(launch.Output(), HasSubstr("to go on from there: strata launch -- train"));
  EXPECT_THAT(launch.Output(), HasSubstr(run_.out() + "/logs"));
}

// Where nobody ends the other ranks, they see for themselves, long before the deadline.
TEST_F(LaunchTest, RanksSeeThatOneIsGone) {
  const std::string logs = run_.out() + "/logs";
  std::filesystem::create_directories(logs);
  std::vector<std::string> command = Command({}, 1'000'000);
  command.erase(command.begin(), command.begin() + 3);  // what follows "launch --"
  const std::vector<std::string> mpirun = {"mpirun", "-n", "4", STRATA_BINARY, "launch-rank", "--log-dir", logs, "--"};
  command.insert(command.begin(), mpirun.begin(), mpirun.end());
  Process job(command);
  WaitForSteps([&] { return Log(0); });
  ::kill(Rank(2), SIGKILL);
  const auto told = [&] {
    for (int r : {0, 1, 3}) {
      if (Log(r).find(": rank 2 is gone; rank 2 has ") != std::string::npos) return true;
    }
    return false;
  };
  for (int i = 0; i < 500 && !told(); ++i) std::this_thread::sleep_for(kLook);
  EXPECT_TRUE(told()) << Log(0) << Log(1) << Log(3);
  ::kill(job.pid(), SIGTERM);
  job.Wait();
}

TEST_F(LaunchTest, AHungRankEndsTheJobWithinItsDeadline) {
  Process launch(Command({"--show", "failed"}, 1'000'000, {"--set=guard.hang_timeout=2"}));
  WaitForSteps([&] { return Log(0); });
  const pid_t stopped = Rank(2);
  ::kill(stopped, SIGSTOP);
  const auto begun = std::chrono::steady_clock::now();
  EXPECT_EQ(launch.Wait(), 124) << launch.Output();
  EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(15));
  EXPECT_THAT(launch.Output(), ContainsRegex("rank [013] failed first: gave up waiting \\(exit code 124\\)"));
  EXPECT_THAT(launch.Output(),
              ContainsRegex("communicator [a-z]+, call [0-9]+, [a-z-]+.*: rank 2 did not arrive within 2000 ms"));
  EXPECT_THAT(launch.Output(), ContainsRegex("; rank 2 has (issued [0-9]+ calls? of [a-z]+, and has )?been [a-z].* for "
                                             "[0-9.]+ s; its process [0-9]+ is stopped"));
  EXPECT_THAT(launch.Output(), HasSubstr("rank 2: stopped with them"));
  EXPECT_THAT(launch.Output(), Not(HasSubstr("\nstep 5/")));  // --show failed
}

TEST_F(LaunchTest, AnInterruptSavesAndExits75) {
  for (int signal : {SIGINT, SIGTERM}) {
    Process launch(Command({}, 1'000'000));
    WaitForSteps(launch);
    ::kill(launch.pid(), signal);
    EXPECT_EQ(launch.Wait(), 75) << launch.Output();
    EXPECT_THAT(launch.Output(), HasSubstr("interrupted and saved\nlast checkpoint: "));
    EXPECT_EQ(launch.Output().find("resumed") != std::string::npos, signal == SIGTERM) << launch.Output();
    std::filesystem::remove_all(run_.out() + "/logs");
  }
}

TEST_F(LaunchTest, RanksThatDoNotEndInTimeAreKilled) {
  Process launch(Command({"--grace", "1"}, 1'000'000));
  WaitForSteps(launch);
  ::kill(Rank(1), SIGSTOP);
  ::kill(launch.pid(), SIGTERM);
  EXPECT_EQ(launch.Wait(), 128 + SIGKILL) << launch.Output();
  EXPECT_THAT(launch.Output(), HasSubstr("did not end within --grace=1 s"));
}

TEST_F(LaunchTest, NothingOutlivesAKilledLauncher) {
  Process launch(Command({}, 1'000'000));
  WaitForSteps(launch);
  ::kill(launch.pid(), SIGKILL);
  EXPECT_EQ(launch.Wait(), 128 + SIGKILL);
  for (int i = 0; i < 250 && !Find(config()).empty(); ++i) std::this_thread::sleep_for(kLook);
}  // the fixture looks for what is left

}  // namespace
}  // namespace strata
