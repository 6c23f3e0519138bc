#include "launch/data/objective_rows.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

namespace strata {
namespace {

// Tokens 1000, 1001, ...; targets one more; the last `padding` positions without weight.
class Ascending final : public RowSource {
 public:
  explicit Ascending(size_t padding) : padding_(padding) {}
  absl::Status Row(int64_t, const RowSpans& row) const override {
    const size_t n = row.weights.size();
    std::iota(row.tokens.begin(), row.tokens.end(), 1000);
    std::iota(row.targets.begin(), row.targets.end(), 1001);
    for (size_t i = 0; i < n; ++i) row.weights[i] = i + padding_ < n ? 1.0f : 0.0f;
    for (size_t i = 0; i < n; ++i) row.document_starts[i] = static_cast<int32_t>(i / 3 * 3);
    return absl::OkStatus();
  }

 private:
  size_t padding_;
};

struct Row {
  explicit Row(size_t n) : tokens(n), targets(n), starts(n), weights(n) {}
  std::vector<int32_t> tokens, targets, starts;
  std::vector<float> weights;
  bool operator==(const Row&) const = default;
};

ModelConfig Model(ModelArch arch) {
  ModelConfig c;
  c.arch = arch;
  c.vocab = 50000;
  c.mask_token = 3;
  return c;
}

Row Get(ModelArch arch, int64_t index, size_t n, int64_t seed = 1, size_t padding = 0) {
  const Ascending base(padding);
  Row row(n);
  EXPECT_TRUE(
      ObjectiveRows(base, Model(arch), seed).Row(index, {row.tokens, row.targets, row.weights, row.starts}).ok());
  return row;
}

TEST(ObjectiveRows, NextTokenRowsAreAsTheyAre) {
  const Row row = Get(ModelArch::kGpt2, 5, 64);
  for (int i = 0; i < 64; ++i) {
    EXPECT_EQ(row.tokens[i], 1000 + i);
    EXPECT_EQ(row.targets[i], 1001 + i);
    EXPECT_EQ(row.weights[i], 1);
    EXPECT_EQ(row.starts[i], i / 3 * 3);
  }
}

TEST(ObjectiveRows, HidesFifteenPercentByTheRule) {
  const int n = 40000;
  const Row row = Get(ModelArch::kBert, 5, n);
  int chosen = 0, masked = 0, kept = 0;
  for (int i = 0; i < n; ++i) {
    ASSERT_EQ(row.targets[i], 1000 + i);
    const bool same = row.tokens[i] == row.targets[i];
    ASSERT_TRUE(same || row.weights[i] == 1) << i;
    chosen += row.weights[i] == 1;
    masked += row.tokens[i] == 3;
    kept += row.weights[i] == 1 && same;
    ASSERT_TRUE(row.tokens[i] >= 0 && row.tokens[i] < 50000);
  }
  EXPECT_NEAR(chosen, 0.15 * n, 4 * 72);      // 4 standard deviations
  EXPECT_NEAR(masked, 0.8 * chosen, 4 * 31);  // of 6000
  EXPECT_NEAR(kept, 0.1 * chosen, 4 * 24);
  EXPECT_NEAR(chosen - masked - kept, 0.1 * chosen, 4 * 24);
}

TEST(ObjectiveRows, AreAFunctionOfSeedAndIndex) {
  const Row row = Get(ModelArch::kBert, 5, 64);
  EXPECT_EQ(row, Get(ModelArch::kBert, 5, 64));
  EXPECT_NE(row, Get(ModelArch::kBert, 6, 64));
  EXPECT_NE(row, Get(ModelArch::kBert, 5, 64, 2));
}

TEST(ObjectiveRows, EveryRowHasAChosenPositionThatIsNotPadding) {
  for (int64_t index = 0; index < 200; ++index) {
    const Row row = Get(ModelArch::kBert, index, 4, 1, 2);
    EXPECT_GE(row.weights[0] + row.weights[1], 1);
    EXPECT_EQ(row.weights[2] + row.weights[3], 0);
    EXPECT_EQ(row.tokens[3], 1003);
  }
  const Row padding = Get(ModelArch::kBert, 0, 4, 1, 4);
  EXPECT_EQ(std::accumulate(padding.weights.begin(), padding.weights.end(), 0.0f), 0);
}

}  // namespace
}  // namespace strata
