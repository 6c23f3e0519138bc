#include "launch/data/loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <set>

#include "launch/data/permutation.h"
#include "tests/launch/temp_dir.h"

namespace strata {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(PermutationTest, IsABijectionForEverySize) {
  for (int64_t n = 1; n <= 300; ++n) {
    std::set<int64_t> seen;
    for (int64_t i = 0; i < n; ++i) seen.insert(Permute(7, 3, n, i));
    EXPECT_EQ(std::ssize(seen), n);
    EXPECT_EQ(*seen.begin(), 0);
    EXPECT_EQ(*seen.rbegin(), n - 1);
  }
}

TEST(PermutationTest, LooksRandom) {
  // Where index 0 of 5 goes, and how many points stay fixed, over many epochs: uniform would be 800 each, and 1 a time.
  std::vector<int> place(5);
  int fixed = 0;
  for (uint64_t epoch = 0; epoch < 4000; ++epoch) {
    ++place[Permute(1, epoch, 5, 0)];
    for (int64_t i = 0; i < 5; ++i) fixed += Permute(1, epoch, 5, i) == i;
  }
  for (const int count : place) EXPECT_NEAR(count, 800, 5 * 26);
  EXPECT_NEAR(fixed, 4000, 5 * 64);
}

TEST(PermutationTest, HugeDomainsAreFine) {
  const int64_t n = (int64_t{1} << 61) + 12345;
  std::set<int64_t> seen;
  for (int64_t i = 0; i < 100; ++i) seen.insert(Permute(1, 0, n, n - 1 - i));
  EXPECT_EQ(seen.size(), 100u);
  EXPECT_GE(*seen.begin(), 0);
  EXPECT_LT(*seen.rbegin(), n);
}

class LoaderTest : public ::testing::Test {
 protected:
  // Documents of 50 and num_tokens - 50 tokens; token i of the stream is i.
  void Write(int32_t num_tokens) {
    std::vector<int32_t> tokens(num_tokens);
    std::iota(tokens.begin(), tokens.end(), 0);
    auto writer = IndexedDatasetWriter::Create(env_, prefix_, num_tokens);
    ASSERT_TRUE(writer.ok()) << writer.status();
    const int32_t first = std::min(50, num_tokens);
    ASSERT_TRUE((*writer)->AddDocument(std::span(tokens).first(first)).ok());
    ASSERT_TRUE((*writer)->AddDocument(std::span(tokens).subspan(first)).ok());
    ASSERT_TRUE((*writer)->Finish().ok());
  }

  Loader Make(int64_t seq_len, uint64_t seed) {
    auto loader = Loader::Create(env_, prefix_, seq_len, seed, 1 << 16);
    EXPECT_TRUE(loader.ok()) << loader.status();
    return *std::move(loader);
  }

  // Which sample the loader gives; checks that it is whole and that the targets are one token further on.
  static int64_t SampleOf(const Loader& loader, int64_t index) {
    std::vector<int32_t> tokens(loader.seq_len()), targets(loader.seq_len());
    std::vector<float> weights(loader.seq_len());
    EXPECT_TRUE(loader.Sample(index, {tokens, targets, weights}).ok());
    EXPECT_THAT(weights, Each(1.0f));
    EXPECT_EQ(tokens[0] % loader.seq_len(), 0);
    for (int64_t i = 0; i < loader.seq_len(); ++i) {
      EXPECT_EQ(tokens[i], tokens[0] + i);
      EXPECT_EQ(targets[i], tokens[i] + 1);
    }
    return tokens[0] / loader.seq_len();
  }

  static std::vector<int64_t> Epoch(const Loader& loader, int64_t epoch) {
    std::vector<int64_t> order;
    for (int64_t i = 0; i < loader.samples_per_epoch(); ++i) {
      order.push_back(SampleOf(loader, epoch * loader.samples_per_epoch() + i));
    }
    return order;
  }

  Env& env_ = Env::Posix();
  TempDir dir_;
  const std::string prefix_ = dir_.path("train");
};

TEST_F(LoaderTest, EachEpochHasEachSampleOnce) {
  Write(1000);
  const Loader loader = Make(7, 1);
  ASSERT_EQ(loader.samples_per_epoch(), 142);  // 999 targets
  for (const int64_t epoch : {0, 1, 1000000}) {
    const auto order = Epoch(loader, epoch);
    EXPECT_EQ(std::set<int64_t>(order.begin(), order.end()).size(), 142u);
  }
}

TEST_F(LoaderTest, EpochsAndSeedsDiffer) {
  Write(1000);
  const Loader loader = Make(7, 1), other = Make(7, 2);
  EXPECT_NE(Epoch(loader, 0), Epoch(loader, 1));
  EXPECT_NE(Epoch(loader, 0), Epoch(other, 0));
}

TEST_F(LoaderTest, OrderDoesNotDependOnWhatWasAskedBefore) {
  Write(1000);
  const Loader loader = Make(7, 1), resumed = Make(7, 1);
  const auto order = Epoch(loader, 1);
  for (int64_t i = std::ssize(order) - 1; i >= 0; i -= 3) {
    EXPECT_EQ(SampleOf(resumed, loader.samples_per_epoch() + i), order[i]);
  }
}

TEST_F(LoaderTest, WindowsHaveEachTargetOnce) {
  Write(24);
  const Loader loader = Make(10, 1);
  EXPECT_EQ(loader.samples_per_epoch(), 2);
  ASSERT_EQ(loader.num_windows(), 3);
  std::vector<int32_t> tokens(10), targets(10);
  std::vector<float> weights(10);
  const WindowRows rows(loader);
  ASSERT_TRUE(rows.Row(1, {tokens, targets, weights}).ok());
  EXPECT_THAT(tokens, ElementsAre(10, 11, 12, 13, 14, 15, 16, 17, 18, 19));
  EXPECT_THAT(targets, ElementsAre(11, 12, 13, 14, 15, 16, 17, 18, 19, 20));
  EXPECT_THAT(weights, Each(1.0f));
  ASSERT_TRUE(rows.Row(2, {tokens, targets, weights}).ok());
  EXPECT_THAT(tokens, ElementsAre(20, 21, 22, 0, 0, 0, 0, 0, 0, 0));
  EXPECT_THAT(targets, ElementsAre(21, 22, 23, 0, 0, 0, 0, 0, 0, 0));
  EXPECT_THAT(weights, ElementsAre(1, 1, 1, 0, 0, 0, 0, 0, 0, 0));
}

TEST_F(LoaderTest, AWholeNumberOfWindowsHasNoPadding) {
  Write(21);
  const Loader loader = Make(10, 1);
  EXPECT_EQ(loader.samples_per_epoch(), 2);
  EXPECT_EQ(loader.num_windows(), 2);
}

TEST_F(LoaderTest, TooFewTokensIsAnError) {
  Write(10);
  EXPECT_TRUE(Loader::Create(env_, prefix_, 9, 1, 10).ok());
  const absl::Status status = Loader::Create(env_, prefix_, 10, 1, 10).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr(prefix_));
}

TEST_F(LoaderTest, VocabularyMismatchIsAnError) {
  Write(60);
  EXPECT_TRUE(Loader::Create(env_, prefix_, 9, 1, 60).ok());
  const absl::Status status = Loader::Create(env_, prefix_, 9, 1, 59).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr(prefix_ + ".bin: vocabulary mismatch"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("token id 59"));
}

}  // namespace
}  // namespace strata
