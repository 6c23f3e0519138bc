#include "launch/job/schedule_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "models/model.h"
#include "models/pass_flops.h"
#include "tests/testing/small_job.h"

namespace strata {
namespace {

using ::testing::HasSubstr;

JobConfig Config(int64_t layers, int64_t micro_batches) {
  JobConfig config = testing::SmallJob(1, 1, micro_batches);
  config.model.layers = layers;
  return config;
}
ScheduleQuery Query(const std::string& name) {
  return {.name = name, .ranks = 4, .machine = {.flops_per_s = 1e9, .latency_s = 1e-7, .bytes_per_s = 1e11}};
}

TEST(PassFlops, AddUp) {
  for (const ModelArch arch : {ModelArch::kLlama, ModelArch::kGpt2, ModelArch::kBert}) {
    ModelConfig m;
    m.arch = arch;
    m.layers = 5;
    const auto [attention, feed_forward] = BlockFlops(m);
    EXPECT_NEAR(5 * (attention.sum() + feed_forward.sum()) + HeadFlops(m).sum(), FlopsPerToken(m),
                1e-9 * FlopsPerToken(m));
    EXPECT_GT(attention.attention.input_grad, 0);
    EXPECT_EQ(feed_forward.attention.sum(), 0);
    EXPECT_GT(feed_forward.products.forward, 0);
  }
}

TEST(ScheduleReport, EverySchedule) {
  const JobConfig config = Config(16, 8);
  const absl::StatusOr<std::vector<ScheduleRow>> rows = CompareSchedules(config, Query("all"), 1000);
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_GT(rows->size(), ScheduleNames().size());
  const auto find = [&](const std::string& name, int chunks) {
    for (const ScheduleRow& r : *rows) {
      if (r.name == name && r.chunks == chunks) return r;
    }
    ADD_FAILURE() << name;
    return ScheduleRow{};
  };
  const ScheduleRow one = find("1f1b", 1), wide = find("interleaved", 4), gpipe = find("gpipe", 1);
  EXPECT_LT(wide.step_s, one.step_s);
  EXPECT_LT(wide.bubble, one.bubble);
  EXPECT_GT(wide.sent_bytes, one.sent_bytes);
  EXPECT_EQ(gpipe.peak, 8);
  EXPECT_EQ(one.peak, 4);
  EXPECT_DOUBLE_EQ(gpipe.activation_bytes / one.activation_bytes, 2);
  // One rank's sends: 8 micro-batches, forward and back, of micro x seq x dim numbers.
  EXPECT_EQ(one.sent_bytes, 16.0 * static_cast<double>(config.batch.micro * config.model.seq * config.model.dim *
                                                       SizeOf(config.precision.compute)));
  for (const ScheduleRow& r : *rows) {
    EXPECT_EQ(r.refused, absl::OkStatus());
    EXPECT_GE(r.one_stream_step_s, r.step_s - 1e-12) << r.name;
  }
  EXPECT_TRUE(find("dualpipe", 1).refused.ok());
  const std::string table = ScheduleTable(config, Query("all"), *rows);
  EXPECT_THAT(table, HasSubstr("4 ranks, 8 micro-batches"));
  EXPECT_THAT(table, HasSubstr("fastest"));
  EXPECT_EQ(ScheduleSections(*rows).size(), rows->size());
}

// Halves of a block take what the block takes, in the passes in which they do.
TEST(ScheduleReport, ModelsPartsOfBlocks) {
  const JobConfig config = Config(4, 8);
  const auto stages = [&](const StageLayout& layout) { return ModelledStages(config, layout, 1e9); };
  const auto blocks = stages({{{0, 1}, {1, 2}, {2, 4}}}), halves = stages({{{0, 2}, {2, 3}, {3, 8}}, 2});
  const auto whole = stages({{{0, 2}, {2, 4}, {4, 8}}, 2});
  const auto sum = [](const auto& s, auto field) { return s[0].*field + s[1].*field + s[2].*field; };
  using Stage = StageDurations::Stage;
  for (const auto field : {&Stage::forward, &Stage::input_grad, &Stage::weight_grad}) {
    for (const int s : {0, 1, 2}) EXPECT_DOUBLE_EQ(whole[s].*field, blocks[s].*field) << s;
    EXPECT_DOUBLE_EQ(sum(halves, field), sum(blocks, field));
    EXPECT_GT(halves[1].*field, 0);
    EXPECT_LT(halves[1].*field, blocks[1].*field);
  }
  const double feed_forward = blocks[1].weight_grad - halves[1].weight_grad;  // products alone, alike in all passes
  EXPECT_NEAR(blocks[1].forward - halves[1].forward, feed_forward, 1e-9 * feed_forward);
  EXPECT_GT(halves[1].forward, halves[1].weight_grad);  // of attention's half, scores too
}

TEST(ScheduleReport, SaysWhyNot) {
  const absl::StatusOr<std::vector<ScheduleRow>> rows = CompareSchedules(Config(6, 6), Query("all"), 1000);
  ASSERT_TRUE(rows.ok()) << rows.status();
  const std::string table = ScheduleTable(Config(6, 6), Query("all"), *rows);
  EXPECT_THAT(table, HasSubstr("no: schedule dualpipe cannot have 4 ranks and 6 micro-batches"));
  EXPECT_THAT(table, HasSubstr("nearest legal: 8 micro-batches, or 2 ranks"));
  EXPECT_EQ(CompareSchedules(Config(6, 6), Query("chimera"), 1000).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(CompareSchedules(Config(6, 6), Query("1f1"), 1000).status().message()),
              HasSubstr("there are gpipe"));
  ScheduleQuery wide = Query("interleaved");
  wide.chunks = 4;
  EXPECT_FALSE(CompareSchedules(Config(6, 8), wide, 1000).ok());  // 16 stages of 6 blocks in two parts each
  ScheduleQuery measured = Query("1f1b");
  measured.stages.resize(3);
  EXPECT_THAT(std::string(CompareSchedules(Config(6, 8), measured, 1000).status().message()),
              HasSubstr("durations of 3 stages for a schedule of 4"));
  measured.stages = {{1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}};
  EXPECT_NEAR(CompareSchedules(Config(6, 8), measured, 1000)->front().step_s, 3 * (8 + 3), 1e-3);
}

}  // namespace
}  // namespace strata
