// `strata train` under mpirun: the losses and checkpoints of thread ranks, and one checkpoint for all ranks on resume.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <signal.h>

#include <regex>

#include "tests/launch/small_run.h"
#include "tests/mpi/spawn.h"

namespace strata {
namespace {

using ::testing::HasSubstr;
using testing::Process;

std::string Read(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadText(Env::Posix(), path);
  return text.ok() ? *text : text.status().ToString();
}

class MpiTrain : public ::testing::Test {
 protected:
  MpiTrain() { run_.Load(); }

  // The command that trains on `ranks` processes (0: on threads) into folder `out`.
  std::vector<std::string> Command(int processes, const std::string& out, const std::string& steps) const {
    std::vector<std::string> command;
    if (processes > 0) command = {"mpirun", "-n", std::to_string(processes)};
    const std::vector<std::string> train = {STRATA_BINARY,
                                            "train",
                                            run_.dir().path("run.toml"),
                                            "--set=parallel.dp=2",
                                            "--set=parallel.tp=2",
                                            "--set=run.out=" + run_.dir().path(out),
                                            "--set=schedule.steps=" + steps,
                                            "--set=checkpoint.every=2"};
    command.insert(command.end(), train.begin(), train.end());
    return command;
  }
  // Every logged number that does not depend on time.
  std::string Numbers(const std::string& out) const {
    const std::regex timed(",\"(step_s|data_wait|tokens_per_s|save_s|stall_s|checkpoint)\":[^,}]*");
    const std::string text = std::regex_replace(Read(run_.dir().path(out) + "/metrics.jsonl"), timed, "");
    return std::regex_replace(text, std::regex("[^\n]*\\{\"step\":[0-9]+\\}\n"),
                              "");  // of saves: written when they end
  }
  std::string Shard(const std::string& out, int rank) const {
    return Read(run_.dir().path(out) + absl::StrFormat("/checkpoints/step-0000000006/data-%05d.h5", rank));
  }

  SmallRun run_;
};

TEST_F(MpiTrain, ProcessesHaveTheBitsOfThreads) {
  Process threads(Command(0, "threads", "6"));
  ASSERT_EQ(threads.Wait(), 0) << threads.Output();
  Process processes(Command(4, "processes", "6"));
  ASSERT_EQ(processes.Wait(), 0) << processes.Output();
  EXPECT_THAT(Numbers("threads"), HasSubstr("\"step\":6"));
  EXPECT_EQ(Numbers("threads"), Numbers("processes"));
  for (int rank = 0; rank < 4; ++rank) {
    EXPECT_GT(Shard("threads", rank).size(), 500u);
    EXPECT_EQ(Shard("threads", rank), Shard("processes", rank)) << rank;
  }
}

TEST_F(MpiTrain, PipelinesToo) {
  const auto command = [&](int processes, const std::string& out) {
    std::vector<std::string> c = Command(processes, out, "6");
    for (const char* set : {"parallel.dp=1", "parallel.tp=1", "parallel.pp=4", "parallel.schedule=\"interleaved\"",
                            "model.layers=8", "batch.accumulate=8"}) {
      c.push_back(std::string("--set=") + set);
    }
    return c;
  };
  Process threads(command(0, "threads"));
  ASSERT_EQ(threads.Wait(), 0) << threads.Output();
  Process processes(command(4, "processes"));
  ASSERT_EQ(processes.Wait(), 0) << processes.Output();
  EXPECT_THAT(Numbers("threads"), HasSubstr("\"step\":6"));
  EXPECT_EQ(Numbers("threads"), Numbers("processes"));
  for (int rank = 0; rank < 4; ++rank) EXPECT_EQ(Shard("threads", rank), Shard("processes", rank)) << rank;
}

TEST_F(MpiTrain, ResumesWhereTheOthersDo) {
  Process first(Command(4, "out", "4"));
  ASSERT_EQ(first.Wait(), 0) << first.Output();
  Process second(Command(4, "out", "6"));
  ASSERT_EQ(second.Wait(), 0) << second.Output();
  EXPECT_THAT(second.Output(), HasSubstr("step-0000000004: step 4 of 6"));
  EXPECT_THAT(second.Output(), HasSubstr("trained 2 steps"));
}

TEST_F(MpiTrain, AnotherNumberOfProcessesIsRefused) {
  Process mpirun(Command(3, "out", "6"));
  EXPECT_EQ(mpirun.Wait(), 64);
  EXPECT_THAT(mpirun.Output(), HasSubstr("the job has 4 ranks (parallel.pp * dp * tp), and was started as 3"));
}

TEST_F(MpiTrain, VariablesWithoutAnMpiLauncherAreRefused) {
  Process alone(Command(0, "out", "6"), {"RANK=1", "WORLD_SIZE=4"});
  EXPECT_EQ(alone.Wait(), 64);
  EXPECT_THAT(alone.Output(), HasSubstr("RANK says rank 1 of 4, MPI says rank 0 of 1"));
}

}  // namespace
}  // namespace strata
