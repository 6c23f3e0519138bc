// Several sources as one order of samples, down to a training run.

#include "launch/data/training_data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "tests/launch/small_run.h"

namespace strata {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kSeq = 4;

struct Row {
  std::vector<int32_t> tokens = std::vector<int32_t>(kSeq), targets = tokens, starts = tokens;
  std::vector<float> weights = std::vector<float>(kSeq);
  RowSpans spans() { return {tokens, targets, weights, starts}; }
};

class TrainingDataTest : public ::testing::Test {
 protected:
  // A source whose token i is first + i.
  Loader Source(const std::string& name, int32_t first, int64_t num_tokens, size_t index) {
    std::vector<int32_t> tokens(num_tokens);
    for (int64_t i = 0; i < num_tokens; ++i) tokens[i] = first + static_cast<int32_t>(i);
    auto writer = IndexedDatasetWriter::Create(env_, dir_.path(name), 1000);
    EXPECT_TRUE(writer.ok() && (*writer)->AddDocument(tokens).ok() && (*writer)->Finish().ok());
    auto loader = Loader::Create(env_, dir_.path(name), kSeq, SourceSeed(9, index), 1000);
    EXPECT_TRUE(loader.ok()) << loader.status();
    return *std::move(loader);
  }
  TrainingData Three() {
    const double weights[] = {2, 1, 1};
    std::vector<Loader> sources;
    sources.push_back(Source("a", 0, 81, 0));
    sources.push_back(Source("b", 100, 29, 1));
    sources.push_back(Source("c", 200, 41, 2));
    return {std::move(sources), Mixture(weights)};
  }

  Env& env_ = Env::Posix();
  TempDir dir_;
};

TEST_F(TrainingDataTest, EachSourcesSamplesComeOnceAnEpochInItsOwnOrder) {
  const TrainingData data = Three();
  const TrainRows rows(data);
  std::vector<std::vector<int32_t>> seen(3);  // first tokens, by source
  Row row, own;
  for (int64_t i = 0; i < 240; ++i) {
    ASSERT_TRUE(rows.Row(i, row.spans()).ok());
    const size_t k = row.tokens[0] / 100;
    ASSERT_TRUE(data.sources[k].Sample(std::ssize(seen[k]), own.spans()).ok());
    EXPECT_EQ(row.tokens, own.tokens);
    EXPECT_EQ(row.targets, own.targets);
    seen[k].push_back(row.tokens[0]);
  }
  for (size_t k = 0; k < 3; ++k) {
    const int64_t epoch = data.sources[k].samples_per_epoch();
    ASSERT_GE(std::ssize(seen[k]), 4 * epoch);
    for (int64_t begin = 0; begin + epoch <= std::ssize(seen[k]); begin += epoch) {
      EXPECT_EQ(std::set(seen[k].begin() + begin, seen[k].begin() + begin + epoch).size(), static_cast<size_t>(epoch));
    }
  }
}

TEST_F(TrainingDataTest, OneSourceIsInTheOrderOfItsLoader) {
  std::vector<Loader> sources;
  sources.push_back(Source("a", 0, 81, 0));
  const TrainingData data{std::move(sources), Mixture(std::vector<double>{0.4})};
  const Loader loader = Source("a", 0, 81, 0);
  Row row, own;
  for (int64_t i = 0; i < 60; ++i) {
    ASSERT_TRUE(TrainRows(data).Row(i, row.spans()).ok());
    ASSERT_TRUE(loader.Sample(i, own.spans()).ok());
    EXPECT_EQ(row.tokens, own.tokens);
  }
  EXPECT_EQ(data.Describe(8, 4), "samples 8 to 11");
}

TEST_F(TrainingDataTest, SourcesOfTheSameFilesAreInDifferentOrders) {
  const Loader a = Source("a", 0, 801, 0), b = Source("a", 0, 801, 1);
  Row x, y;
  int same = 0;
  for (int64_t i = 0; i < 200; ++i) {
    ASSERT_TRUE(a.Sample(i, x.spans()).ok() && b.Sample(i, y.spans()).ok());
    same += x.tokens == y.tokens;
  }
  EXPECT_LT(same, 10);
}

TEST_F(TrainingDataTest, BatchesNameTheirSources) {
  const TrainingData data = Three();  // a b a c a b a c ... or the like: two of a, one of b, one of c in any four
  const std::string text = data.Describe(40, 8);
  EXPECT_EQ(text, absl::StrFormat("samples 40 to 47 (%s 20 to 23, %s 10 to 11, %s 10 to 11)", dir_.path("a"),
                                  dir_.path("b"), dir_.path("c")));
  const Mixture::Place place = data.mixture.At(40);
  EXPECT_EQ(data.Describe(40, 1),
            absl::StrFormat("samples 40 to 40 (%s %d to %d)", data.sources[place.source].dataset().prefix(),
                            place.sample, place.sample));
}

// Down to training: of a small run the validation tokens are a second source.
Overrides Mixed(const SmallRun& run, int dp) {
  return {absl::StrFormat("data.train=[{path=\"%s\", weight=2.0}, {path=\"%s\"}]", run.dir().path("train"),
                          run.dir().path("valid")),
          absl::StrFormat("parallel.dp=%d", dp), "checkpoint.every=3", "checkpoint.keep=9"};
}

std::vector<double> Losses(const SmallRun& run) {
  std::vector<double> losses;
  for (const auto& line : run.Metrics("loss")) losses.push_back(line["loss"]);
  return losses;
}

TEST(TrainingOnSeveralSources, IsTheSameOnAnyNumberOfRanksAndAfterAResume) {
  std::vector<double> one;
  for (const int dp : {1, 2, 4}) {
    SmallRun run;
    ASSERT_TRUE(run.Train(Mixed(run, dp)).ok());
    const std::vector<double> losses = Losses(run);
    ASSERT_EQ(losses.size(), 6u);
    if (dp == 1) one = losses;
    for (size_t i = 0; i < 6; ++i) EXPECT_NEAR(losses[i], one[i], 1e-12) << "dp " << dp << " step " << i + 1;
    std::filesystem::remove_all(run.checkpoint(6));
    ASSERT_TRUE(run.Train(Mixed(run, dp)).ok());  // steps 4 to 6 again
    EXPECT_THAT(run.output, HasSubstr("resumed"));
    EXPECT_EQ(Losses(run), losses);
  }
  SmallRun other;
  ASSERT_TRUE(other.Train().ok());
  EXPECT_NE(Losses(other), one);
}

TEST(TrainingOnSeveralSources, GuardNamesTheSources) {
  SmallRun run;
  Overrides overrides = Mixed(run, 1);
  for (const char* tight : {"guard.spike_z=0.01", "guard.window=2", "optim.lr=0.0001"}) overrides.emplace_back(tight);
  const absl::Status status = run.Train(overrides);
  ASSERT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr("(" + run.dir().path("train") + " "));
  EXPECT_THAT(std::string(status.message()), HasSubstr(", " + run.dir().path("valid") + " "));
}

TEST(TrainingOnSeveralSources, MistakesPointAtTheSource) {
  SmallRun run;
  const auto write = [&](const std::string& name, int64_t vocab, uint32_t tokenizer) {
    auto writer = IndexedDatasetWriter::Create(Env::Posix(), run.dir().path(name), vocab, tokenizer);
    ASSERT_TRUE(writer.ok() && (*writer)->AddDocument(std::vector<int32_t>(100, 1)).ok() && (*writer)->Finish().ok());
  };
  write("a", 32, 7);
  write("b", 32, 8);
  write("c", 31, 0);
  const std::string text =
      "[model]\nvocab = 32\nseq = 16\n[data]\ntrain = [\n {path = \"a\"},\n {path = \"b\"},\n {path = \"c\"},\n"
      " {path = \"none\"},\n]\n[batch]\nmicro = 1\naccumulate = 1\n";
  const auto errors = [&](const std::string& config) {
    EXPECT_TRUE(WriteTextAtomically(Env::Posix(), run.dir().path("bad.toml"), config).ok());
    const auto job = LoadJobConfig(Env::Posix(), run.dir().path("bad.toml"), {.data = true});
    return std::string(job.ok() ? Train(Env::Posix(), *job, {}).message() : job.status().message());
  };
  EXPECT_THAT(errors(text), HasSubstr("none.idx does not exist\n  --> " + run.dir().path("bad.toml") + ":9:2"));
  const std::string three = errors(std::string(text).replace(text.find(" {path = \"none\"},\n"), 18, ""));
  EXPECT_THAT(three, HasSubstr("b was made with another tokenizer (32 pieces, checksum 00000008)"));
  EXPECT_THAT(three, HasSubstr("bad.toml:7:2"));
  EXPECT_THAT(three, HasSubstr("c was made with another tokenizer (31 pieces"));
  EXPECT_THAT(three, HasSubstr("bad.toml:8:2"));
}

}  // namespace
}  // namespace strata
