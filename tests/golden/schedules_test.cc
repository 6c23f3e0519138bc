// Every schedule at p = 4 and m = 8 as text, and its lowered lists. After an intended change: STRATA_UPDATE_GOLDEN=1
// build/golden_tests.

#include <gtest/gtest.h>

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "core/base/env.h"
#include "parallel/pipeline/lower.h"
#include "parallel/pipeline/text.h"
#include "tests/testing/pipeline.h"

namespace strata {
namespace {

TEST(GoldenSchedules, AllOfFourRanks) {
  std::string text;
  for (std::string_view name : ScheduleNames()) {
    const absl::StatusOr<Schedule> s = MakeSchedule({.name = std::string(name), .ranks = 4, .micro_batches = 8});
    ASSERT_TRUE(s.ok()) << s.status();
    const absl::StatusOr<LoweredSchedule> l = LowerSchedule(*s, testing::UnitStages(*s));
    ASSERT_TRUE(l.ok()) << l.status();
    absl::StrAppend(&text, DumpSchedule(*s), "lowered\n", DumpLowered(*l), "\n");
  }
  const std::string path = STRATA_SOURCE_DIR "/tests/golden/schedules.txt";
  if (std::getenv("STRATA_UPDATE_GOLDEN") != nullptr) {
    ASSERT_TRUE(WriteTextAtomically(Env::Posix(), path, text).ok());
  }
  const absl::StatusOr<std::string> want = ReadText(Env::Posix(), path);
  ASSERT_TRUE(want.ok()) << want.status();
  EXPECT_EQ(text, *want);
}

}  // namespace
}  // namespace strata
