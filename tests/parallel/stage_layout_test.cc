// Which blocks, and parts of blocks, stages have: as text, and so that they are fast.

#include "parallel/pipeline/stage_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "core/base/philox.h"
#include "parallel/pipeline/balance.h"
#include "parallel/pipeline/simulate.h"

namespace strata {
namespace {

using ::testing::HasSubstr;

TEST(StageLayouts, PrintAndParse) {
  for (const char* text : {"E,0-3 | 4-7 | 8-10 | 11,H", "E | 0-5 | 6-11 | H", "E,0-11,H"}) {
    const int stages = 1 + static_cast<int>(std::count(text, text + strlen(text), '|'));
    for (const int parts : {1, 2, 3}) {
      const absl::StatusOr<StageLayout> layout = ParseStageLayout(text, {12, parts}, stages);
      ASSERT_TRUE(layout.ok()) << layout.status();
      EXPECT_EQ(ToString(*layout), text);
      EXPECT_EQ(layout->num_parts(), 12 * parts);
    }
  }
  EXPECT_TRUE(ParseStageLayout(" E ,0-3|4-7,H ", {8, 1}, 2).ok());
}

TEST(StageLayouts, PrintAndParseParts) {
  const auto read = [](std::string_view text, const ModelBlocks& model) {
    const int stages = 1 + static_cast<int>(std::count(text.begin(), text.end(), '|'));
    const absl::StatusOr<StageLayout> layout = ParseStageLayout(text, model, stages);
    EXPECT_TRUE(layout.ok()) << text << ": " << layout.status();
    return layout.value_or(StageLayout{});
  };
  const StageLayout halves = read("E,0-15a | 15b-27,H", {28, 2});
  EXPECT_EQ(halves.stages, (std::vector<StageLayout::Parts>{{0, 31}, {31, 56}}));
  EXPECT_EQ(halves.StageOf(14, 1), 0);
  EXPECT_EQ(halves.StageOf(15, 0), 0);
  EXPECT_EQ(halves.StageOf(15, 1), 1);
  EXPECT_EQ(halves.StageOf(16, 0), 1);
  for (const char* text :
       {"E,0-15a | 15b-27,H", "E | 0a | 0b-1a | 1b | 2-26a | 26b-27a | 27b,H", "E,0-26 | 27a | 27b,H"}) {
    EXPECT_EQ(ToString(read(text, {28, 2})), text);
  }
  for (const char* text : {"E,0-14,15a | 15b,16-27,H", "E,0a-15a|15b-27b,H", "E,0,1-1,2-14b,15a-15a | 15b,16-27,H"}) {
    EXPECT_EQ(read(text, {28, 2}), halves) << text;
  }
  for (const char* text : {"E,0a | 0b-0c | 1a-1b | 1c-2b | 2c,H", "E,0-1b | 1c-2,H"}) {
    EXPECT_EQ(ToString(read(text, {3, 3})), text);
  }
}

TEST(StageLayouts, ErrorsNameALegalOne) {
  const auto error = [](const char* text, int blocks, int stages, int parts = 1) {
    return std::string(ParseStageLayout(text, {blocks, parts}, stages).status().message());
  };
  EXPECT_THAT(error("E,0-3|4-7,H", 8, 4), HasSubstr("2 stages where the schedule has 4; legal would be \"E,0-1 | 2-3"));
  EXPECT_THAT(error("E,0-3|5-7,H", 8, 2), HasSubstr("block 5 where block 4 is next"));
  EXPECT_THAT(error("E,0-3|4-6,H", 8, 2), HasSubstr("ends with block 6, the model with block 7"));
  EXPECT_THAT(error("0-3|4-7,H", 8, 2), HasSubstr("E must be in the first stage"));
  EXPECT_THAT(error("E,0-3|4-7", 8, 2), HasSubstr("H must be in the last stage"));
  EXPECT_THAT(error("E,0-3||4-7,H", 8, 3), HasSubstr("is none of E"));
  EXPECT_THAT(error("E,0-3|x|4-7,H", 8, 3), HasSubstr("\"x\" is none of E"));
  EXPECT_THAT(error("E,3-0|4-7,H", 8, 2), HasSubstr("\"3-0\" is none of"));
  EXPECT_THAT(error("E,0|1,H", 2, 2), "");
  EXPECT_THAT(error("E|0|1|2|H", 2, 5), HasSubstr("5 stages are more than the 4 parts of the model"));
  EXPECT_EQ(error("E,0-3a|3b-7,H", 8, 2, 2), "");
  EXPECT_EQ(error("E,0-3a|3b-7,H", 8, 2), "block 3 cannot be cut: it has one part; legal would be \"E,0-3 | 4-7,H\"");
  EXPECT_THAT(error("E,0-3c|4-7,H", 8, 2, 2), HasSubstr("block 3 has the parts a to b, and no c; legal would be"));
  EXPECT_THAT(error("E,0-3a|4-7,H", 8, 2, 2), HasSubstr("block 4 where block 3b is next"));
  EXPECT_THAT(error("E,0-3|3b-7,H", 8, 2, 2), HasSubstr("block 3b where block 4 is next"));
  EXPECT_THAT(error("E,0-2|3b-7,H", 8, 2, 2), HasSubstr("block 3b where block 3 is next"));
  EXPECT_THAT(error("E,0-3,5|6-7,H", 8, 2, 2), HasSubstr("block 5 where block 4 is next"));
  EXPECT_THAT(error("E,0-3|4-7a,H", 8, 2, 2), HasSubstr("it ends with block 7a, the model with block 7; legal"));
  EXPECT_THAT(error("E,0-3|4-7,8a,H", 8, 2, 2), HasSubstr("it ends with block 8a, the model with block 7"));
  EXPECT_THAT(error("E,0-3|4b-4a,5-7,H", 8, 2, 2),
              HasSubstr("\"4b-4a\" is none of E (the embedding, first), a block or range "
                        "of blocks such as 4-7 or 4b-7a, and H"));
  for (const char* word : {"a", "3ab", "3A", "0-a", "0-3a-3b", "99999999999a", "-1a"}) {
    EXPECT_THAT(error(absl::StrCat("E,0-2,", word, "|3b-7,H").c_str(), 8, 2, 2),
                HasSubstr(absl::StrCat("\"", word, "\" is none of E")));
  }
  EXPECT_THAT(error("E|0a|0b|1a|1b|H|", 2, 7, 2),
              HasSubstr("7 stages are more than the 6 parts of the model: embedding, 2 "
                        "blocks of 2 parts, head"));
  EXPECT_THAT(error("E|0a|0b|1b|H", 2, 5, 2), HasSubstr("left out; legal would be \"E | 0a | 0b | 1a | 1b,H\""));
}

TEST(StageLayouts, BalanceByWork) {
  const auto balanced = [](double embedding, std::vector<double> blocks, double head, int stages) {
    return ToString(*BalancedLayout({embedding, head, std::move(blocks)}, stages));
  };
  EXPECT_EQ(balanced(0, std::vector<double>(8, 1), 0, 4), "E,0-1 | 2-3 | 4-5 | 6-7,H");
  EXPECT_EQ(balanced(0, std::vector<double>(8, 1), 2, 2), "E,0-4 | 5-7,H");
  EXPECT_EQ(balanced(0, std::vector<double>(7, 1), 3, 4), "E,0-1 | 2-3 | 4-6 | H");
  EXPECT_EQ(balanced(0, {4, 1, 1, 1, 1}, 0, 2), "E,0 | 1-4,H");
  EXPECT_EQ(balanced(0, {1, 1}, 0, 4), "E | 0 | 1 | H");
  EXPECT_FALSE(BalancedLayout({0, 0, {1, 1}}, 5).ok());
  // No layout has a faster slowest stage: all of them are tried.
  for (uint64_t seed = 0; seed < 20; ++seed) {
    std::vector<double> cost;
    for (int i = 0; i < 8; ++i) cost.push_back(1 + static_cast<double>(Philox(seed, 1, i)[0] % 100));
    const std::vector<double> blocks(cost.begin() + 1, cost.end() - 1);
    const StageLayout layout = *BalancedLayout({cost.front(), cost.back(), blocks}, 3);
    const auto slowest = [&](int a, int b) {  // items [0, a), [a, b), [b, 8)
      double worst = 0, sum[3] = {};
      for (int i = 0; i < 8; ++i) sum[i < a ? 0 : i < b ? 1 : 2] += cost[i];
      for (const double s : sum) worst = std::max(worst, s);
      return worst;
    };
    double best = 1e9;
    for (int a = 1; a < 7; ++a) {
      for (int b = a + 1; b < 8; ++b) best = std::min(best, slowest(a, b));
    }
    EXPECT_DOUBLE_EQ(slowest(layout.stages[0].end + 1, layout.stages[1].end + 1), best) << ToString(layout);
  }
}

// Llama 3B on two H200, ms a micro-batch: attention, feed-forward, head.
TEST(StageLayouts, CutBlocksWhereItPays) {
  const auto balanced = [](double first, double second, int blocks, double head, int stages) {
    ModelCosts costs{.head = head, .parts_per_block = 2};
    for (int b = 0; b < blocks; ++b) costs.parts.insert(costs.parts.end(), {first, second});
    const absl::StatusOr<StageLayout> layout = BalancedLayout(costs, stages);
    return layout.ok() ? ToString(*layout) : std::string(layout.status().message());
  };
  EXPECT_EQ(balanced(2.0, 2.9, 28, 14.5, 2), "E,0-15a | 15b-27,H");
  EXPECT_EQ(balanced(2.0, 2.9, 28, 0, 2), "E,0-13 | 14-27,H");  // even
  EXPECT_EQ(balanced(2.0, 2.9, 28, 0, 4), "E,0-6 | 7-13 | 14-20 | 21-27,H");
  // A block is cut for more than 0.5% of the slowest stage.
  EXPECT_EQ(balanced(1, 1, 101, 0, 2), "E,0-50a | 50b-100,H");  // 101 instead of 102
  EXPECT_EQ(balanced(1, 1, 301, 0, 2), "E,0-149 | 150-300,H");  // 301 instead of 302
  // No more blocks than the slowest stage needs: 6 and 7 instead of 5 and 8 gain nothing.
  EXPECT_EQ(ToString(*BalancedLayout({0, 0, {10, 1, 1, 3, 1, 3, 1, 3}, 2}, 3)), "E,0a | 0b-1 | 2-3,H");
  // More stages than blocks and their ends.
  EXPECT_EQ(balanced(1, 1, 2, 1, 6), "E | 0a | 0b | 1a | 1b | H");
  EXPECT_THAT(balanced(1, 1, 2, 1, 7), HasSubstr("7 stages are more than the 6 parts"));
}

ModelCosts Uniform(double first, double second, int blocks, double head) {
  ModelCosts costs{.head = head, .parts_per_block = 2};
  for (int b = 0; b < blocks; ++b) costs.parts.insert(costs.parts.end(), {first, second});
  return costs;
}

double Step(const StageLayout& layout, const ModelCosts& costs, const Schedule& schedule) {
  const absl::StatusOr<Timeline> step = Simulate(schedule, ModelledDurations(layout, costs));
  EXPECT_TRUE(step.ok()) << step.status();
  return step.ok() ? step->makespan() : 0;
}

TEST(FastestLayouts, CutBlocksWhereTheStepGains) {
  const auto fastest = [](const char* name, int ranks, int chunks, const ModelCosts& costs) {
    const absl::StatusOr<Schedule> schedule =
        MakeSchedule({.name = name, .ranks = ranks, .chunks = chunks, .micro_batches = 16});
    EXPECT_TRUE(schedule.ok()) << schedule.status();
    const absl::StatusOr<StageLayout> layout = FastestLayout(costs, *schedule);
    return layout.ok() ? ToString(*layout) : std::string(layout.status().message());
  };
  const ModelCosts llama_3b = Uniform(2.0, 2.9, 28, 14.5);
  for (const char* name : {"1f1b", "zb-h1", "gpipe"}) {
    EXPECT_EQ(fastest(name, 2, 1, llama_3b), "E,0-15a | 15b-27,H") << name;
  }
  // The stages of a rank make up for each other: 75.3 and 76.4 ms.
  EXPECT_EQ(fastest("zbv", 2, 2, llama_3b), "E,0-7a | 7b-14 | 15-22 | 23-27,H");
  // The slowest stage is fastest with E,0-7 | 8-15 | 16-23 | 24-27,H, the step with more in the last stage's rank.
  EXPECT_EQ(fastest("zbv", 2, 2, Uniform(1.29, 1.93, 28, 10.07)), "E,0-8a | 8b-15 | 16-23 | 24-27,H");
  EXPECT_EQ(fastest("interleaved", 2, 2, Uniform(2.0, 2.9, 28, 0)), "E,0-6 | 7-13 | 14-20 | 21-27,H");
  EXPECT_THAT(fastest("1f1b", 8, 1, Uniform(1, 1, 2, 1)), HasSubstr("8 stages are more than the 6 parts of the model"));
}

// For every schedule and several models.
TEST(FastestLayouts, AreNoSlowerThanWholeBlocks) {
  int cut = 0;
  for (const std::string_view name : ScheduleNames()) {
    for (const auto& [blocks, head] :
         {std::pair(16, 9.0), std::pair(17, 2.0), std::pair(22, 14.5), std::pair(32, 0.0)}) {
      const absl::StatusOr<Schedule> schedule =
          MakeSchedule({.name = std::string(name), .ranks = 4, .micro_batches = 16});
      ASSERT_TRUE(schedule.ok()) << schedule.status();
      const ModelCosts costs = Uniform(2.0, 2.9, blocks, head);
      const absl::StatusOr<StageLayout> fastest = FastestLayout(costs, *schedule);
      ASSERT_TRUE(fastest.ok()) << fastest.status();
      ModelCosts coarse{.head = head, .parts = std::vector<double>(blocks, 4.9)};
      const StageLayout whole = *BalancedLayout(coarse, schedule->stages());
      const double step = Step(*fastest, costs, *schedule), of_whole = Step(whole, coarse, *schedule);
      EXPECT_LE(step, of_whole * (1 + 1e-9)) << name << ": " << ToString(*fastest);
      if (ToString(*fastest) == ToString(whole)) continue;
      EXPECT_LT(step, of_whole / 1.005) << name << ": " << ToString(*fastest);
      ++cut;
    }
  }
  EXPECT_GT(cut, 10);
  EXPECT_LT(cut, 40);
}

}  // namespace
}  // namespace strata
