#include "launch/data/prefetch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <set>
#include <thread>

#include "core/base/philox.h"
#include "launch/config/job_config.h"
#include "tests/testing/alloc_counter.h"

namespace strata {
namespace {

constexpr int64_t kSeq = 8;

// Random rows; row `bad` is an error; each takes `delay`.
class Source final : public RowSource {
 public:
  absl::Status Row(int64_t index, const RowSpans& row) const override {
    std::this_thread::sleep_for(delay);
    ++calls;
    if (index == bad) return absl::DataLossError("row is bad");
    for (size_t i = 0; i < row.tokens.size(); ++i) {
      const PhiloxBlock r = Philox(1, static_cast<uint64_t>(index), i);
      row.tokens[i] = static_cast<int32_t>(r[0]);
      row.targets[i] = static_cast<int32_t>(r[1]);
      row.weights[i] = static_cast<float>(r[2]);
      row.document_starts[i] = static_cast<int32_t>(r[3]);
    }
    return absl::OkStatus();
  }
  int64_t bad = -1;
  std::chrono::microseconds delay{0};
  mutable std::atomic<int64_t> calls = 0;
};

struct Row {
  std::vector<int32_t> tokens = std::vector<int32_t>(kSeq), targets = tokens, starts = tokens;
  std::vector<float> weights = std::vector<float>(kSeq);
  RowSpans spans() { return {tokens, targets, weights, starts}; }
  bool operator==(const Row&) const = default;
};

Row Get(const RowSource& source, int64_t index) {
  Row row;
  EXPECT_TRUE(source.Row(index, row.spans()).ok()) << index;
  return row;
}

// Of 12 rows a step this rank has six, of two micro-batches.
const RowOrder kOrder = {24, 12, {3, 4, 5, 9, 10, 11}};

TEST(Prefetch, OrderIsThatOfTheSteps) {
  std::vector<int64_t> rows;
  for (int64_t i = 0; i < 8; ++i) rows.push_back(kOrder.At(i));
  EXPECT_THAT(rows, ::testing::ElementsAre(27, 28, 29, 33, 34, 35, 39, 40));
}

TEST(Prefetch, GivesTheRowsOfItsSourceAtAnyDepthAndSpeed) {
  for (const int64_t depth : {1, 2, 7}) {
    for (const int slow : {0, 1, 2}) {  // nobody, the source, the reader
      Source source;
      if (slow == 1) source.delay = std::chrono::microseconds(300);
      const PrefetchRows rows(source, kOrder, depth, kSeq);
      const Source direct;
      for (int64_t i = 0; i < 60; ++i) {
        if (slow == 2) std::this_thread::sleep_for(std::chrono::microseconds(300));
        ASSERT_EQ(Get(rows, kOrder.At(i)), Get(direct, kOrder.At(i))) << i;
      }
    }
  }
}

TEST(Prefetch, OtherRowsAreReadFromTheSource) {
  const Source source, direct;
  const PrefetchRows rows(source, kOrder, 2, kSeq);
  for (int64_t i = 0; i < 20; ++i) {
    ASSERT_EQ(Get(rows, 1000 + i), Get(direct, 1000 + i));
    ASSERT_EQ(Get(rows, kOrder.At(i)), Get(direct, kOrder.At(i)));
  }
}

TEST(Prefetch, ReadsNoFurtherAheadThanItsDepth) {
  const Source source;
  {
    const PrefetchRows rows(source, kOrder, 2, kSeq);
    Get(rows, kOrder.At(0));
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  EXPECT_EQ(source.calls, 13);
}

TEST(Prefetch, AnErrorComesFromTheRowThatItBelongsTo) {
  Source source;
  source.bad = kOrder.At(8);
  const PrefetchRows rows(source, kOrder, 3, kSeq);
  for (int64_t i = 0; i < 30; ++i) {
    Row row;
    const absl::Status status = rows.Row(kOrder.At(i), row.spans());
    EXPECT_EQ(status.ok(), i != 8) << i;
    EXPECT_EQ(status.message(), i == 8 ? "row is bad" : "");
  }
}

TEST(Prefetch, EndsWhileItWaitsForRoomAndWhileItReads) {
  for (const int64_t rows_taken : {0, 5}) {
    Source slow;
    slow.delay = std::chrono::milliseconds(5);
    const auto begun = std::chrono::steady_clock::now();
    {
      const PrefetchRows rows(slow, kOrder, 100, kSeq);
      for (int64_t i = 0; i < rows_taken; ++i) Get(rows, kOrder.At(i));
    }
    EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(1));  // all of them are 3 s
  }
}

TEST(Prefetch, SeveralReadersGetTheRowsThatTheyAskFor) {
  const Source source, direct;
  const PrefetchRows rows(source, kOrder, 2, kSeq);
  std::vector<std::thread> readers;
  for (int r = 0; r < 3; ++r) {
    readers.emplace_back([&] {
      for (int64_t i = 0; i < 200; ++i) ASSERT_EQ(Get(rows, kOrder.At(i)), Get(direct, kOrder.At(i)));
    });
  }
  for (std::thread& reader : readers) reader.join();
}

TEST(Prefetch, DoesNotAllocate) {
  const Source source;
  const PrefetchRows rows(source, kOrder, 2, kSeq);
  Row row;
  int64_t allocations = 0;
  bool ok = rows.Row(kOrder.At(0), row.spans()).ok();
  {
    const testing::AllocCounter counter;
    for (int64_t i = 1; i < 100; ++i) ok = rows.Row(kOrder.At(i), row.spans()).ok() && ok;
    allocations = counter.count();
  }
  EXPECT_TRUE(ok);
  EXPECT_EQ(allocations, 0);
}

}  // namespace
}  // namespace strata
