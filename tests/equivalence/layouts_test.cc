// float64: any layout equals the one-rank run after several steps: losses, gradient norms, evaluation and every parameter,
// with uneven token masks. The table is tests/testing/layout_table.cc.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "absl/strings/str_replace.h"
#include "tests/testing/layout_table.h"

namespace strata {
namespace {

using testing::DifferenceOf;
using testing::JobRun;
using testing::kLayoutSteps;
using testing::kLayoutTolerance;
using testing::LayoutDifference;
using testing::LayoutRow;
using testing::RunJob;

class Layouts : public ::testing::TestWithParam<LayoutRow> {};

TEST_P(Layouts, EqualsOneRank) { testing::ExpectEqualsOneRank(GetParam()); }

INSTANTIATE_TEST_SUITE_P(All, Layouts, ::testing::ValuesIn(testing::LayoutTable()), [](const auto& info) {
  return absl::StrReplaceAll(info.param.name, {{" ", "_"}});
});

// The criterion can fail: another seed of initial values is another run, and so are other masks.
TEST(LayoutCriterion, TellsRunsApart) {
  const LayoutRow row = testing::ParseLayoutRow("gpt2 dp2");
  const absl::StatusOr<JobRun> want = RunJob(row.one_rank, kLayoutSteps);
  ASSERT_TRUE(want.ok()) << want.status();
  JobConfig other = row.config;
  other.run.seed = 8;
  absl::StatusOr<JobRun> run = RunJob(other, kLayoutSteps);
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_GT(DifferenceOf(*run, *want).worst, 1e-3);
  other = row.config;
  other.model.dropout = 0.1;
  run = RunJob(other, kLayoutSteps);
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_GT(DifferenceOf(*run, *want).worst, 1e-4);
}

TEST(LayoutTable, SpansWhatItShould) {
  const std::vector<LayoutRow> rows = testing::LayoutTable();
  int64_t most = 1;
  for (const LayoutRow& row : rows) most = std::max(most, row.config.parallel.ranks());
  EXPECT_GE(rows.size(), 40u);
  EXPECT_EQ(most, 16);
  for (const LayoutRow& row : testing::MpiLayoutRows()) {
    EXPECT_TRUE(std::any_of(rows.begin(), rows.end(), [&](auto& r) { return r.name == row.name; })) << row.name;
  }
}

TEST(Training, LossesAreSane) {
  const absl::StatusOr<JobRun> run = RunJob(testing::SmallJob(1, 1, 1), kLayoutSteps);
  ASSERT_TRUE(run.ok()) << run.status();
  for (const StepReport& s : run->steps) {
    EXPECT_GT(s.loss, 1.0);
    EXPECT_LT(s.loss, 6.0);
    EXPECT_GT(s.grad_norm, 0.0);
  }
}

}  // namespace
}  // namespace strata
