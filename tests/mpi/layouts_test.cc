// Rows of the table of layouts on ranks that are processes: each process finds its part of every parameter equal to one rank.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "tests/mpi/spawn.h"
#include "tests/testing/layout_table.h"

namespace strata {
namespace {

using ::testing::HasSubstr;
using testing::LayoutRow;
using testing::Process;

class MpiLayouts : public ::testing::TestWithParam<LayoutRow> {};

TEST_P(MpiLayouts, EqualOneRank) {
  const int64_t ranks = GetParam().config.parallel.ranks();
  Process mpirun({"mpirun", "-n", std::to_string(ranks), STRATA_MPI_LAYOUT_PROGRAM, GetParam().name});
  EXPECT_EQ(mpirun.Wait(), 0) << mpirun.Output();
  for (int64_t r = 0; r < ranks; ++r)
    EXPECT_THAT(mpirun.Output(), HasSubstr(absl::StrFormat("rank %d of %d", r, ranks)));
}

INSTANTIATE_TEST_SUITE_P(All, MpiLayouts, ::testing::ValuesIn(testing::MpiLayoutRows()), [](const auto& info) {
  return absl::StrReplaceAll(info.param.name, {{" ", "_"}});
});

TEST(MpiLayoutTable, HasTenRows) { EXPECT_GE(testing::MpiLayoutRows().size(), 10u); }

}  // namespace
}  // namespace strata
