// Saves behind training: what is saved is what was there at the save, however slow the disk is, and training does not wait.

#include "launch/job/saver.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <mutex>

#include "checkpoint/catalog.h"
#include "checkpoint/diff.h"
#include "checkpoint/reader.h"
#include "core/base/status.h"
#include "core/exec/cpu_device.h"
#include "launch/data/objective_rows.h"
#include "launch/job/gather.h"
#include "launch/job/rank_runner.h"
#include "parallel/comm/thread_world.h"
#include "tests/launch/small_run.h"
#include "tests/testing/fault_env.h"
#include "tests/testing/small_job.h"
#include "tests/testing/temp_dir.h"

namespace strata {
namespace {

using testing::FaultEnv;
using ::testing::HasSubstr;

// A rank of a small job, in the middle of its steps.
struct Rank {
  int rank;
  RankRunner& runner;
  Saver& saver;
  Communicator& control;
  const RowSource& rows;
  int64_t next_sample = 0;
  std::vector<SaveReport> reports;

  absl::Status Train(int64_t step) {
    RETURN_IF_ERROR(runner.TrainStep(step, next_sample, rows).status());
    next_sample += runner.rows_per_step();
    return absl::OkStatus();
  }
  absl::Status Advance() {
    ASSIGN_OR_RETURN(const int64_t progress, AllMax(control, saver.Progress()));
    ASSIGN_OR_RETURN(const std::optional<SaveReport> report, saver.Advance(progress));
    if (report) reports.push_back(*report);
    return absl::OkStatus();
  }
};

// Runs `body` as each of four ranks.
absl::Status RunFour(Env& env, const std::string& out, const std::function<absl::Status(Rank&)>& body,
                     bool async = true) {
  JobConfig config = testing::SmallJob(2, 2, 1);
  config.run.out = out;
  config.checkpoint = {.every = 1, .keep = 9, .async = async};
  const KernelTable kernels = CpuKernels();
  ASSIGN_OR_RETURN(const Job job, CompileTraining(config, kernels));
  ASSIGN_OR_RETURN(const std::vector<Plan> plans, PlanRanks(job, kernels));
  const testing::TableRows table(config.model.vocab, 3);
  const ObjectiveRows rows(table, config.model, config.run.seed);
  return RunRanks(job.ranks, [&](World& world) -> absl::Status {
    CpuDevice device;
    ASSIGN_OR_RETURN(const auto control, world.Connect({"control", {0, 1, 2, 3}}));
    const auto plan = std::make_shared<const Plan>(plans[world.rank()]);
    ASSIGN_OR_RETURN(const auto runner, RankRunner::Create(job, plan, world, device, nullptr));
    ASSIGN_OR_RETURN(const auto saver,
                     Saver::Create({env, job, plans, runner->executor(), device, *control, world.rank()}));
    RETURN_IF_ERROR(runner->InitParameters(7));
    Rank rank{world.rank(), *runner, *saver, *control, rows};
    RETURN_IF_ERROR(body(rank));
    RETURN_IF_ERROR(runner->Close());
    return control->Close();
  });
}

// A disk that stands still from Close() to Open(), or for 20 s.
class Gate {
 public:
  FaultEnv::Hook Hook() {
    return [this](std::string_view, const std::string&) {
      std::unique_lock lock(mutex_);
      if (!opened_.wait_for(lock, std::chrono::seconds(20), [&] { return open_; })) timed_out_ = true;
      return absl::OkStatus();
    };
  }
  void Close() { Set(false); }
  void Open() { Set(true); }
  bool timed_out() const { return timed_out_; }

 private:
  void Set(bool open) {
    const std::lock_guard lock(mutex_);
    open_ = open;
    opened_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable opened_;
  bool open_ = true;
  std::atomic<bool> timed_out_ = false;
};

TEST(Saver, TrainingGoesOnWhileTheDiskStandsStill) {
  const TempDir dir;
  Gate gate;
  FaultEnv slow(gate.Hook()), fast;
  // What the states are after steps 1 and 2.
  ASSERT_TRUE(RunFour(fast, dir.path("want"), [](Rank& r) -> absl::Status {
                for (int step = 1; step <= 2; ++step) {
                  RETURN_IF_ERROR(r.Train(step));
                  RETURN_IF_ERROR(r.saver.SaveNow(step, r.next_sample).status());
                }
                return absl::OkStatus();
              }).ok());
  gate.Close();
  const absl::Status status = RunFour(slow, dir.path("got"), [&](Rank& r) -> absl::Status {
    for (int step = 1; step <= 12; ++step) {
      RETURN_IF_ERROR(r.Train(step));
      RETURN_IF_ERROR(r.Advance());
      if (step > 3) continue;
      ASSIGN_OR_RETURN(const bool started, r.saver.Start(step, r.next_sample));
      EXPECT_EQ(started, step <= 2);  // both buffers are in use at step 3
    }
    EXPECT_TRUE(r.reports.empty());  // twelve steps without the disk
    if (r.rank == 0) gate.Open();
    ASSIGN_OR_RETURN(const std::vector<SaveReport> saved, r.saver.Finish());
    EXPECT_EQ(saved.size(), 2u);
    for (size_t i = 0; i < saved.size(); ++i) {
      EXPECT_EQ(saved[i].step, static_cast<int64_t>(i) + 1);
      EXPECT_LT(saved[i].stall_s, saved[i].save_s);
    }
    // And now there is room again.
    ASSIGN_OR_RETURN(const bool started, r.saver.Start(12, r.next_sample));
    EXPECT_TRUE(started);
    return r.saver.Finish().status();
  });
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_FALSE(gate.timed_out());
  for (const int64_t step : {1, 2}) {
    const std::string name = "/checkpoints/" + StepDirName(step);
    const auto diff = DiffCheckpoints(fast, dir.path("want") + name, dir.path("got") + name);
    ASSERT_TRUE(diff.ok()) << diff.status();
    EXPECT_GT(diff->tensors, 30);
    EXPECT_TRUE(diff->differ.empty()) << diff->ToText();
    const auto reader = CheckpointReader::Open(fast, dir.path("got") + name);
    ASSERT_TRUE(reader.ok()) << reader.status();
    EXPECT_EQ(reader->meta().next_sample, 8 * step);
    EXPECT_EQ(reader->meta().mesh, "dp=2 tp=2");
  }
}

TEST(Saver, IsCommittedAtStepBoundariesAlone) {
  const TempDir dir;
  FaultEnv env;
  const absl::Status status = RunFour(env, dir.path("out"), [&](Rank& r) -> absl::Status {
    RETURN_IF_ERROR(r.Train(1));
    RETURN_IF_ERROR(r.saver.Start(1, r.next_sample).status());
    for (int step = 2; r.reports.empty(); ++step) {
      RETURN_IF_ERROR(r.Train(step));
      RETURN_IF_ERROR(r.Advance());
    }
    EXPECT_EQ(r.reports[0].path, dir.path("out/checkpoints/") + StepDirName(1));
    EXPECT_EQ(r.saver.Progress(), Saver::kReady);
    return absl::OkStatus();
  });
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_THAT(VerifyCheckpoint(env, dir.path("out/checkpoints/") + StepDirName(1)), ::testing::IsEmpty());
}

TEST(Saver, AFullDiskOfOneRankEndsAllAndKeepsWhatWasSaved) {
  const TempDir dir;
  std::atomic<bool> full = false;
  FaultEnv env([&](std::string_view operation, const std::string& path) {
    if (!full || operation != "write" || !path.ends_with("data-00001.h5")) return absl::OkStatus();
    return absl::ResourceExhaustedError(path + ": write: No space left on device");
  });
  const absl::Status status = RunFour(env, dir.path("out"), [&](Rank& r) -> absl::Status {
    RETURN_IF_ERROR(r.Train(1));
    RETURN_IF_ERROR(r.saver.SaveNow(1, r.next_sample).status());
    full = true;
    RETURN_IF_ERROR(r.Train(2));
    RETURN_IF_ERROR(r.saver.Start(2, r.next_sample).status());
    absl::Status advanced;
    for (int step = 3; step < 10000 && advanced.ok(); ++step) {
      RETURN_IF_ERROR(r.Train(step));
      advanced = r.Advance();
    }
    EXPECT_EQ(advanced.code(), absl::StatusCode::kResourceExhausted) << r.rank;
    EXPECT_THAT(std::string(advanced.message()), HasSubstr("data-00001.h5: write: No space left on device")) << r.rank;
    return absl::OkStatus();
  });
  ASSERT_TRUE(status.ok()) << status;
  const auto newest = FindNewestValid(env, dir.path("out/checkpoints"));
  ASSERT_TRUE(newest.ok()) << newest.status();
  EXPECT_EQ(newest->path, dir.path("out/checkpoints/") + StepDirName(1));
}

TEST(Saver, WithoutAsyncThereAreNoBuffers) {
  const TempDir dir;
  FaultEnv env;
  const absl::Status status = RunFour(
      env, dir.path("out"),
      [&](Rank& r) -> absl::Status {
        EXPECT_FALSE(r.saver.has_buffers());
        return r.saver.SaveNow(1, 0).status();
      },
      /*async=*/false);
  ASSERT_TRUE(status.ok()) << status;
}

// A whole run, whose data files cannot be written before step 4 is logged: saves of steps 3 and 4 find both buffers in use.
TEST(Saver, ASlowDiskMakesCheckpointsRareNotTrainingSlow) {
  SmallRun want, run;
  ASSERT_TRUE(want.Train({"checkpoint.every=1", "checkpoint.async=false"}).ok());
  EXPECT_TRUE(want.Metrics("saves_left_out").empty());
  std::mutex mutex;
  std::condition_variable logged;
  int lines = 0;
  bool timed_out = false;
  FaultEnv env([&](std::string_view operation, const std::string& path) {
    std::unique_lock lock(mutex);
    if (operation == "write" && path.ends_with("metrics.jsonl")) {
      ++lines;
      logged.notify_all();
    }
    if (operation == "write" && path.find("/data-") != std::string::npos) {
      constexpr int kLines = 7;  // untrained, steps 1 to 4, two saves left out
      timed_out |= !logged.wait_for(lock, std::chrono::seconds(20), [&] { return lines >= kLines; });
    }
    return absl::OkStatus();
  });
  const absl::Status status = run.Train({"checkpoint.every=1"}, "auto", env);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_FALSE(timed_out);
  const std::vector<nlohmann::json> left_out = run.Metrics("saves_left_out");
  ASSERT_GE(left_out.size(), 2u);
  EXPECT_EQ(left_out[0]["step"], 3);
  EXPECT_EQ(left_out[1]["saves_left_out"], 2);
  EXPECT_THAT(run.output, HasSubstr("step 3 is not saved: the two saves before it are still being written"));
  EXPECT_THAT(run.output, HasSubstr("saves were left out"));
  const auto diff = DiffCheckpoints(env, want.checkpoint(6), run.checkpoint(6));
  ASSERT_TRUE(diff.ok()) << diff.status();
  EXPECT_TRUE(diff->differ.empty()) << diff->ToText();
}

}  // namespace
}  // namespace strata
