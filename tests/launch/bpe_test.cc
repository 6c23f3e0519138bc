#include "launch/tokenizer/bpe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/base/philox.h"

namespace strata {
namespace {

using ::testing::ElementsAre;

BpeModel::Options Bytes() {
  BpeModel::Options options;
  for (int byte = 0; byte < 256; ++byte) options.byte_ids[byte] = byte;
  return options;
}

std::vector<int32_t> Encode(const BpeModel& model, std::string_view word) {
  BpeScratch scratch;
  std::vector<int32_t> ids, again;
  model.Encode(word, scratch, &ids);
  model.Encode(word, scratch, &again);  // from the cache
  EXPECT_EQ(ids, again);
  return ids;
}

// The definition: again and again, all places of the pair of lowest rank, from the left.
std::vector<int32_t> EncodeSlowly(const std::vector<BpeMerge>& merges, std::string_view word) {
  std::vector<int32_t> ids(word.begin(), word.end());
  while (true) {
    const BpeMerge* best = nullptr;
    for (const BpeMerge& merge : merges) {
      for (size_t i = 0; best == nullptr && i + 1 < ids.size(); ++i) {
        if (ids[i] == merge.left && ids[i + 1] == merge.right) best = &merge;
      }
    }
    if (best == nullptr) return ids;
    std::vector<int32_t> merged;
    for (size_t i = 0; i < ids.size(); ++i) {
      const bool here = i + 1 < ids.size() && ids[i] == best->left && ids[i + 1] == best->right;
      merged.push_back(here ? best->result : ids[i]);
      i += here ? 1 : 0;
    }
    ids = std::move(merged);
  }
}

TEST(BpeTest, LowestRankThenLeftmost) {
  BpeModel::Options options = Bytes();
  options.merges = {{'b', 'c', 300}, {'a', 'b', 301}, {'a', 'a', 302}};
  const BpeModel model(options);
  EXPECT_THAT(Encode(model, "abc"), ElementsAre('a', 300));
  EXPECT_THAT(Encode(model, "aaa"), ElementsAre(302, 'a'));
  EXPECT_THAT(Encode(model, "aab"), ElementsAre('a', 301));
  EXPECT_THAT(Encode(model, ""), ElementsAre());
}

TEST(BpeTest, OfEqualPairsTheLastHolds) {
  BpeModel::Options options = Bytes();
  options.merges = {{'a', 'b', 300}, {'b', 'c', 301}, {'a', 'b', 300}};
  EXPECT_THAT(Encode(BpeModel(options), "abc"), ElementsAre('a', 301));
}

TEST(BpeTest, WholeWordsComeFirst) {
  BpeModel::Options options = Bytes();
  options.merges = {{'a', 'b', 300}};
  options.words = {{"abc", 301}};
  EXPECT_THAT(Encode(BpeModel(options), "abc"), ElementsAre(301));
  EXPECT_THAT(Encode(BpeModel(options), "abcc"), ElementsAre(300, 'c', 'c'));
}

TEST(BpeTest, UnknownBytes) {
  BpeModel::Options options = Bytes();
  options.byte_ids['x'] = -1;
  options.merges = {{'a', 'b', 300}};
  EXPECT_THAT(Encode(BpeModel(options), "axxb"), ElementsAre(300));
  EXPECT_THAT(Encode(BpeModel(options), "x"), ElementsAre());
  options.unknown_id = 7;
  EXPECT_THAT(Encode(BpeModel(options), "axxb"), ElementsAre('a', 7, 7, 'b'));
  options.fuse_unknown = true;
  EXPECT_THAT(Encode(BpeModel(options), "axxbx"), ElementsAre('a', 7, 'b', 7));
}

TEST(BpeTest, AsByDefinition) {
  for (uint64_t n = 0; n < 300; ++n) {
    std::vector<BpeMerge> merges;  // of three letters and what was merged of them
    std::vector<int32_t> pieces = {'a', 'b', 'c'};
    for (uint64_t i = 0; i < 12; ++i) {
      const PhiloxBlock r = Philox(1, n, i);
      const int32_t left = pieces[r[0] % pieces.size()], right = pieces[r[1] % pieces.size()];
      if (std::ranges::any_of(merges, [&](const BpeMerge& m) { return m.left == left && m.right == right; })) continue;
      merges.push_back({left, right, static_cast<int32_t>(300 + i)});
      pieces.push_back(merges.back().result);
    }
    // A table that was trained makes each piece before it uses it; the definition needs that no more than we do.
    BpeModel::Options options = Bytes();
    options.merges = merges;
    std::string word;
    for (uint64_t i = 0; i < 1 + n % 60; ++i) word.push_back(static_cast<char>('a' + Philox(2, n, i)[0] % 3));
    EXPECT_EQ(Encode(BpeModel(options), word), EncodeSlowly(merges, word)) << word;
  }
}

TEST(BpeTest, LongWordsTakeNoSquare) {
  BpeModel::Options options = Bytes();
  options.merges = {{'a', 'a', 300}, {300, 300, 301}};
  EXPECT_EQ(Encode(BpeModel(options), std::string(1 << 20, 'a')).size(), size_t{1} << 18);  // seconds are minutes else
}

TEST(WordCacheTest, KeepsWhatFits) {
  WordCache cache;
  const std::vector<int32_t> ids = {1, 2, 3};
  EXPECT_TRUE(cache.Find("word").empty());
  cache.Keep("word", ids);
  EXPECT_THAT(cache.Find("word"), ElementsAre(1, 2, 3));
  EXPECT_TRUE(cache.Find("wor").empty());
  const std::string longest(WordCache::kMaxBytes, 'x'), longer(WordCache::kMaxBytes + 1, 'x');
  cache.Keep(longest, ids);
  cache.Keep(longer, ids);
  EXPECT_FALSE(cache.Find(longest).empty());
  EXPECT_TRUE(cache.Find(longer).empty());
  cache.Keep("many", std::vector<int32_t>(WordCache::kMaxIds + 1));
  EXPECT_TRUE(cache.Find("many").empty());
}

}  // namespace
}  // namespace strata
