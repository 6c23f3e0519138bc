#pragma once
// A small job with its files in a fresh folder: token files of a skewed random language, a config, training runs of it.

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"
#include "core/base/philox.h"
#include "launch/config/load_config.h"
#include "launch/data/indexed_dataset.h"
#include "launch/job/trainer.h"
#include "tests/testing/temp_dir.h"

namespace strata {

class SmallRun {
 public:
  static constexpr int64_t kVocab = 32;

  SmallRun() {
    WriteTokens(dir_.path("train"), 1, 40);
    WriteTokens(dir_.path("valid"), 2, 3);
  }

  const TempDir& dir() const { return dir_; }
  std::string out() const { return dir_.path("out"); }
  std::string checkpoint(int64_t step) const { return out() + absl::StrFormat("/checkpoints/step-%010d", step); }

  // The config, with values over its own ("optim.lr=1").
  LoadedJob Load(const Overrides& overrides = {}) const {
    const std::string text = absl::StrFormat(
        "[run]\nout = \"out\"\nseed = 7\n[model]\nvocab = %d\nlayers = 1\ndim = 16\nheads = 2\nkv_heads = 2\nffn = 24\n"
        "seq = 16\ninit_std = 0.1\n[data]\ntrain = \"train\"\nvalid = \"valid\"\n[batch]\ntokens = 128\naccumulate = "
        "1\n"
        "[optim]\nlr = 0.01\n[schedule]\nsteps = 6\nwarmup = 2\n[precision]\ncompute = \"float64\"\n[log]\nevery = 1\n",
        kVocab);
    EXPECT_TRUE(WriteTextAtomically(Env::Posix(), dir_.path("run.toml"), text).ok());
    const absl::StatusOr<LoadedJob> job = LoadJobConfig(Env::Posix(), dir_.path("run.toml"), {.data = true}, overrides);
    EXPECT_TRUE(job.ok()) << job.status();
    return *job;
  }

  // Trains, silently. `output` is then what it would have printed.
  absl::Status Train(const Overrides& overrides = {}, const std::string& resume = "auto", Env& env = Env::Posix()) {
    const LoadedJob job = Load(overrides);
    testing::internal::CaptureStdout();
    absl::Status status = strata::Train(env, job, {.resume = resume});
    output = testing::internal::GetCapturedStdout();
    return status;
  }

  // The lines of metrics.jsonl that have `key`.
  std::vector<nlohmann::json> Metrics(const std::string& key) const {
    const absl::StatusOr<std::string> text = ReadText(Env::Posix(), out() + "/metrics.jsonl");
    EXPECT_TRUE(text.ok()) << text.status();
    std::vector<nlohmann::json> lines;
    for (size_t begin = 0; begin < text->size();) {
      const size_t end = text->find('\n', begin);
      nlohmann::json line = nlohmann::json::parse(text->substr(begin, end - begin));
      if (line.contains(key)) lines.push_back(std::move(line));
      begin = end + 1;
    }
    return lines;
  }

  std::string output;

 private:
  static void WriteTokens(const std::string& prefix, uint64_t seed, int documents) {
    absl::StatusOr<std::unique_ptr<IndexedDatasetWriter>> writer =
        IndexedDatasetWriter::Create(Env::Posix(), prefix, kVocab);
    ASSERT_TRUE(writer.ok()) << writer.status();
    for (int d = 0; d < documents; ++d) {
      std::vector<int32_t> tokens;
      for (int i = 0; i < 30 + d % 7; ++i) {
        const double u = PhiloxUniform(Philox(seed, d, i)[0]);
        tokens.push_back(1 + static_cast<int32_t>(u * u * (kVocab - 1)));
      }
      tokens.push_back(0);
      ASSERT_TRUE((*writer)->AddDocument(tokens).ok());
    }
    ASSERT_TRUE((*writer)->Finish().ok());
  }

  TempDir dir_;
};

}  // namespace strata
