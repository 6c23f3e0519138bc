#include "launch/data/loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <set>

#include "launch/data/permutation.h"
#include "tests/testing/temp_dir.h"

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
  // Token i of the stream is i.
  void WriteDocuments(const std::vector<int32_t>& lengths) {
    const int32_t num_tokens = std::accumulate(lengths.begin(), lengths.end(), 0);
    std::vector<int32_t> tokens(num_tokens);
    std::iota(tokens.begin(), tokens.end(), 0);
    auto writer = IndexedDatasetWriter::Create(env_, prefix_, num_tokens);
    ASSERT_TRUE(writer.ok()) << writer.status();
    int32_t begin = 0;
    for (const int32_t length : lengths) {
      ASSERT_TRUE((*writer)->AddDocument(std::span(tokens).subspan(begin, length)).ok());
      begin += length;
    }
    ASSERT_TRUE((*writer)->Finish().ok());
  }
  void Write(int32_t num_tokens) { WriteDocuments({std::min(50, num_tokens), std::max(0, num_tokens - 50)}); }

  Loader Make(int64_t seq_len, uint64_t seed, Packing packing = Packing::kConcat) {
    auto loader = Loader::Create(env_, prefix_, seq_len, seed, 1 << 16, packing);
    EXPECT_TRUE(loader.ok()) << loader.status();
    return *std::move(loader);
  }

  // Which sample the loader gives; checks that it is whole and that the targets are one token further on.
  static int64_t SampleOf(const Loader& loader, int64_t index) {
    std::vector<int32_t> tokens(loader.seq_len()), targets(loader.seq_len()), starts(loader.seq_len(), -1);
    std::vector<float> weights(loader.seq_len());
    EXPECT_TRUE(loader.Sample(index, {tokens, targets, weights, starts}).ok());
    EXPECT_THAT(weights, Each(1.0f));
    EXPECT_THAT(starts, Each(0));
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
  std::vector<int32_t> tokens(10), targets(10), starts(10);
  std::vector<float> weights(10);
  const WindowRows rows(loader);
  ASSERT_TRUE(rows.Row(1, {tokens, targets, weights, starts}).ok());
  EXPECT_THAT(tokens, ElementsAre(10, 11, 12, 13, 14, 15, 16, 17, 18, 19));
  EXPECT_THAT(targets, ElementsAre(11, 12, 13, 14, 15, 16, 17, 18, 19, 20));
  EXPECT_THAT(weights, Each(1.0f));
  ASSERT_TRUE(rows.Row(2, {tokens, targets, weights, starts}).ok());
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

// Documents [0, 3), [3, 4), an empty one, [4, 5), [5, 10) up to a row's end, [10, 25) over a row and a half, [25, 26).
TEST_F(LoaderTest, IsolatedDocumentsBeginWhereTheyDo) {
  WriteDocuments({3, 1, 0, 1, 5, 15, 1});
  const Loader loader = Make(10, 1, Packing::kIsolate);
  ASSERT_EQ(loader.num_windows(), 3);
  std::vector<int32_t> tokens(10), targets(10), starts(10);
  std::vector<float> weights(10);
  const auto window = [&](int64_t i) {
    ASSERT_TRUE(WindowRows(loader).Row(i, {tokens, targets, weights, starts}).ok());
  };
  window(0);
  EXPECT_THAT(tokens, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8, 9));
  EXPECT_THAT(starts, ElementsAre(0, 0, 0, 3, 4, 5, 5, 5, 5, 5));
  EXPECT_THAT(weights, ElementsAre(1, 1, 0, 0, 0, 1, 1, 1, 1, 0));
  window(1);
  EXPECT_THAT(starts, Each(0));
  EXPECT_THAT(weights, Each(1.0f));  // the last target is the same document's, in the next row
  window(2);
  EXPECT_THAT(tokens, ElementsAre(20, 21, 22, 23, 24, 0, 0, 0, 0, 0));
  EXPECT_THAT(starts, ElementsAre(0, 0, 0, 0, 0, 5, 5, 5, 5, 5));
  EXPECT_THAT(weights, ElementsAre(1, 1, 1, 1, 0, 0, 0, 0, 0, 0));
}

TEST_F(LoaderTest, PackingDoesNotChangeTheOrder) {
  Write(1000);
  const Loader concat = Make(7, 1), isolate = Make(7, 1, Packing::kIsolate);
  std::vector<int32_t> a(7), b(7), targets(7), starts(7);
  std::vector<float> weights(7);
  for (int64_t i = 0; i < 2 * concat.samples_per_epoch(); ++i) {
    ASSERT_TRUE(concat.Sample(i, {a, targets, weights, starts}).ok());
    ASSERT_TRUE(isolate.Sample(i, {b, targets, weights, starts}).ok());
    ASSERT_EQ(a, b);
    const bool boundary = a[0] <= 49 && 49 < a[0] + 7;  // the last token of the first document
    ASSERT_EQ(std::accumulate(weights.begin(), weights.end(), 0.0f), boundary ? 6 : 7);
  }
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
