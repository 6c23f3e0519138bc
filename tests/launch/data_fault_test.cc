// A failing file system under data build, and under training's reads.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <map>
#include <thread>

#include "launch/data/build.h"
#include "launch/data/inspect.h"
#include "launch/data/loader.h"
#include "tests/launch/small_run.h"
#include "tests/testing/fault_env.h"

namespace strata {
namespace {

using testing::FaultEnv;
using ::testing::HasSubstr;

using Files = std::map<std::string, std::string>;  // by name

class BuildFaults : public ::testing::Test {
 protected:
  BuildFaults() {
    Put("a.txt", "Some words here.\n\nAnd some more words.\n");
    Put("b.jsonl", "{\"text\":\"Other words.\"}\n{\"text\":\"More of them.\"}\n{\"text\":\"The last.\"}\n");
    BuildOptions first = Options("first", "a.txt", "");
    first.vocab_size = 280;
    EXPECT_TRUE(BuildDataset(posix_, first).ok());
    std::filesystem::copy(dir_.path("first/tokenizer.model"), dir_.path("t.model"));
  }

  void Put(const std::string& name, const std::string& text) {
    EXPECT_TRUE(WriteTextAtomically(posix_, dir_.path(name), text).ok());
  }
  BuildOptions Options(const std::string& out, const std::string& text, const std::string& jsonl) {
    BuildOptions options{.out = dir_.path(out), .valid_fraction = 0.4, .overwrite = true};
    if (!text.empty()) options.inputs = {dir_.path(text)};
    if (!jsonl.empty()) options.jsonl = {dir_.path(jsonl)};
    if (posix_.Exists(dir_.path("t.model"))) options.tokenizer = dir_.path("t.model");
    return options;
  }
  Files Outputs(const std::string& out) {
    Files files;
    if (!posix_.Exists(dir_.path(out))) return files;
    const std::vector<std::string> names = posix_.List(dir_.path(out)).value();
    for (const std::string& name : names) {
      if (std::filesystem::is_regular_file(dir_.path(out) + "/" + name)) {
        files[name] = *ReadUserFile(posix_, dir_.path(out) + "/" + name);
      }
    }
    return files;
  }
  // A dataset that opens is whole; with a training index, everything is of one build.
  void ExpectNoneOrWhole(const std::string& out, const Files& old_files, const Files& new_files) {
    const Files files = Outputs(out);
    for (const char* split : {"train", "valid"}) {
      if (!files.contains(split + std::string(".idx"))) continue;
      const auto verdict = VerifyDataset(posix_, dir_.path(out) + "/" + split);
      EXPECT_TRUE(verdict.ok()) << verdict.status();
    }
    EXPECT_TRUE(!files.contains("train.idx") || files == old_files || files == new_files);
  }

  Env& posix_ = Env::Posix();
  TempDir dir_;
};

struct Failure {
  const char* name;
  bool all_after;  // every operation from then on fails, not one alone
  bool short_writes;
};

TEST_F(BuildFaults, EveryFailingOperationLeavesNoneOrAWholeDataset) {
  ASSERT_TRUE(BuildDataset(posix_, Options("new", "a.txt", "b.jsonl")).ok());
  const Files new_files = Outputs("new");
  ASSERT_EQ(new_files.size(), 7u);
  for (const bool replace : {false, true}) {
    for (const Failure& failure : {Failure{"EIO", false, false}, Failure{"no space left", true, true}}) {
      for (int64_t fail_at = 0;; ++fail_at) {
        std::filesystem::remove_all(dir_.path("out"));
        if (replace) std::filesystem::copy(dir_.path("first"), dir_.path("out"));
        const Files old_files = Outputs("out");
        int64_t operations = 0;
        std::string failed;
        FaultEnv env([&](std::string_view operation, const std::string& path) -> absl::Status {
          const int64_t at = operations++;
          if (at < fail_at || (at > fail_at && !failure.all_after)) return absl::OkStatus();
          if (failed.empty()) failed = path;
          return absl::UnavailableError(absl::StrFormat("%s: %s: %s", path, operation, failure.name));
        });
        if (failure.short_writes) env.MakeFailedWritesShort();
        const absl::Status status = BuildDataset(env, Options("out", "a.txt", "b.jsonl")).status();
        ExpectNoneOrWhole("out", old_files, new_files);
        if (failed.empty()) {
          ASSERT_TRUE(status.ok()) << status;
          ASSERT_EQ(Outputs("out"), new_files);
          EXPECT_GT(operations, 40);
          break;
        }
        // The one failure without a word: of removing the empty folder behind a dataset that is complete.
        const bool cleaning = failed.ends_with("build.tmp") && status.ok();
        EXPECT_TRUE(cleaning || std::string(status.message()).find(failed) != std::string::npos) << status;
        if (HasFatalFailure() || HasNonfatalFailure()) FAIL() << failed << " " << fail_at << " " << failure.name;
      }
    }
  }
}

TEST_F(BuildFaults, AFailedBuildCanBeRepeated) {
  FaultEnv env([&](std::string_view operation, const std::string& path) {
    return operation == "rename" && path.ends_with("out/valid.bin") ? absl::UnavailableError(path) : absl::OkStatus();
  });
  ASSERT_FALSE(BuildDataset(env, Options("out", "a.txt", "")).ok());
  ASSERT_TRUE(BuildDataset(posix_, Options("out", "a.txt", "")).ok());
  EXPECT_TRUE(VerifyDataset(posix_, dir_.path("out/train")).ok());
}

TEST_F(BuildFaults, ABitThatFlipsInAnyWriteIsFoundByVerify) {
  int64_t writes = 1;
  for (int64_t flip_at = 0; flip_at < writes; ++flip_at) {
    int64_t seen = 0;
    std::string flipped;
    FaultEnv* flipping = nullptr;
    FaultEnv env([&](std::string_view operation, const std::string& path) {
      if (operation == "write" && seen++ == flip_at) {
        flipping->FlipBitOfNextWrite();
        flipped = path;
      }
      return absl::OkStatus();
    });
    flipping = &env;
    ASSERT_TRUE(BuildDataset(env, Options("out", "a.txt", "b.jsonl")).ok());
    writes = seen;
    bool found = false;
    for (const char* split : {"out/train", "out/valid"}) {
      const auto verdict = VerifyDataset(posix_, dir_.path(split));
      if (verdict.ok()) continue;
      found = true;
      EXPECT_EQ(verdict.status().code(), absl::StatusCode::kDataLoss);
      std::string name = std::filesystem::path(flipped).filename();
      name = name.substr(0, name.find(".tmp"));
      EXPECT_THAT(std::string(verdict.status().message()), HasSubstr("out/" + name));
    }
    EXPECT_TRUE(found) << flipped;
  }
  EXPECT_GE(writes, 7);
}

// Reads of the training tokens go through `fault`; all others are as they are.
FaultEnv EnvOfReads(std::function<absl::Status(const std::string& path)> fault) {
  return FaultEnv([fault = std::move(fault)](std::string_view operation, const std::string& path) {
    return operation == "read" && path.ends_with("/train.bin") ? fault(path) : absl::OkStatus();
  });
}

constexpr int64_t kReadsOfAStep = 16;  // 8 rows, of which inputs and targets are read

Overrides Layout(int prefetch, int dp) {
  return {absl::StrFormat("data.prefetch=%d", prefetch), absl::StrFormat("parallel.dp=%d", dp)};
}

TEST(ReadFaults, AFailingReadEndsTrainingWithItsFileAndStep) {
  for (const int prefetch : {0, 2}) {
    SmallRun run;
    std::atomic<int64_t> reads = 0;
    FaultEnv env = EnvOfReads([&](const std::string& path) {  // the first read is of the whole, at the start
      const int64_t at = reads++ - 1;
      return at >= 2 * kReadsOfAStep + 5 ? absl::UnavailableError(path + ": read: Input/output error")
                                         : absl::OkStatus();
    });
    const absl::Status status = run.Train(Layout(prefetch, 1), "never", env);
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("data of step 3: " + run.dir().path("train.bin") + ": read: Input/output error"));
    EXPECT_EQ(run.Metrics("loss").size(), 2u) << "prefetch " << prefetch;
  }
}

TEST(ReadFaults, OfOneRankIsTheCauseForAll) {
  SmallRun run;
  std::atomic<int64_t> reads = 0;
  FaultEnv env = EnvOfReads([&](const std::string& path) {
    return reads++ == kReadsOfAStep ? absl::UnavailableError(path + ": read: Input/output error") : absl::OkStatus();
  });
  const absl::Status status = run.Train(Layout(2, 4), "never", env);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("train.bin: read: Input/output error"));
}

TEST(ReadFaults, AFileCutShortWhileTrainingIsAnError) {
  SmallRun run;
  std::atomic<int64_t> reads = 0;
  FaultEnv env = EnvOfReads([&](const std::string& path) {
    if (reads++ == 2 * kReadsOfAStep) std::filesystem::resize_file(path, 10);
    return absl::OkStatus();
  });
  const absl::Status status = run.Train(Layout(2, 1), "never", env);
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("train.bin: ends at byte"));
}

TEST(ReadFaults, ADamagedIndexIsFoundAtTheStart) {
  SmallRun run;
  const std::string path = run.dir().path("train.idx");
  std::string index = *ReadUserFile(Env::Posix(), path);
  index[34] ^= 1;  // a length
  ASSERT_TRUE(WriteTextAtomically(Env::Posix(), path, index).ok());
  const absl::Status status = run.Train();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("train.idx"));
}

// The wait for data.

std::vector<double> Losses(const SmallRun& run) {
  std::vector<double> losses;
  for (const auto& line : run.Metrics("loss")) losses.push_back(line["loss"]);
  return losses;
}

TEST(DataWait, OfASlowSourceIsReportedAndChangesNothing) {
  SmallRun fast;
  ASSERT_TRUE(fast.Train(Layout(0, 1)).ok());
  for (const int prefetch : {0, 1, 3}) {
    SmallRun slow;
    FaultEnv env = EnvOfReads([](const std::string&) {
      std::this_thread::sleep_for(std::chrono::milliseconds(3));
      return absl::OkStatus();
    });
    ASSERT_TRUE(slow.Train(Layout(prefetch, 1), "never", env).ok());
    EXPECT_EQ(Losses(slow), Losses(fast)) << "prefetch " << prefetch;
    const auto lines = slow.Metrics("data_wait");
    ASSERT_EQ(lines.size(), 6u);
    EXPECT_GT(lines[5]["data_wait"], 25);  // 48 ms a step: no thread can read faster than that
    EXPECT_LE(lines[5]["data_wait"], 100);
    EXPECT_THAT(slow.output, ::testing::ContainsRegex("step 6/6 .*  data wait [0-9]+%"));
  }
}

TEST(DataWait, IsHiddenWhereStepsLeaveTimeToReadAhead) {
  double wait[2];
  for (const int prefetch : {0, 2}) {
    SmallRun run;
    FaultEnv env = EnvOfReads([](const std::string&) {
      std::this_thread::sleep_for(std::chrono::microseconds(300));
      return absl::OkStatus();
    });
    // A larger model: its step takes longer than the 5 ms or so of its reads, but for a machine that is much faster.
    Overrides overrides = Layout(prefetch, 1);
    for (const char* larger : {"model.dim=64", "model.ffn=512", "model.layers=4"}) overrides.emplace_back(larger);
    ASSERT_TRUE(run.Train(overrides, "never", env).ok());
    wait[prefetch / 2] = run.Metrics("data_wait")[5]["data_wait"];
  }
  EXPECT_LT(wait[1], wait[0]);
}

TEST(DataWait, ReachesEverySink) {
  SmallRun run;
  ASSERT_TRUE(run.Train({"log.sinks=[\"jsonl\", \"tensorboard\", \"prometheus\"]"}).ok());
  EXPECT_EQ(run.Metrics("data_wait").size(), 6u);
  EXPECT_THAT(*ReadText(Env::Posix(), run.out() + "/metrics.prom"), HasSubstr("strata_data_wait{run=\"run\"} "));
  const std::string folder = run.out() + "/tensorboard";
  EXPECT_THAT(*ReadText(Env::Posix(), folder + "/" + Env::Posix().List(folder)->front()), HasSubstr("data_wait"));
}

}  // namespace
}  // namespace strata
