// What of a timed step overlap has hidden.

#include "launch/job/profile.h"

#include <gtest/gtest.h>

namespace strata {
namespace {

using Timed = Executor::TimedStep;

TEST(Profile, ExposedIsWhereACollectiveRunsAlone) {
  const Step copy{.kind = Step::kCopy}, gather{.kind = Step::kCollective};
  const auto on = [](const Step& s, double begin, double seconds) {
    return Timed{.step = &s, .begin = begin, .seconds = seconds};
  };
  EXPECT_EQ(ExposedSeconds({}), 0);
  EXPECT_EQ(ExposedSeconds({on(copy, 0, 5)}), 0);
  EXPECT_EQ(ExposedSeconds({on(gather, 1, 5)}), 5);
  // [0, 4) computes; a collective in [3, 6), another in [5, 8); [7, 9) computes.
  EXPECT_EQ(ExposedSeconds({on(copy, 0, 4), on(gather, 3, 3), on(gather, 5, 3), on(copy, 7, 2)}), 3);
  // Hidden: under two launches on two streams, one of which goes on.
  EXPECT_EQ(ExposedSeconds({on(copy, 0, 2), on(copy, 1, 9), on(gather, 2, 6)}), 0);
  // Idle time without a collective is not exposed communication.
  EXPECT_EQ(ExposedSeconds({on(copy, 0, 1), on(copy, 5, 1)}), 0);
}

}  // namespace
}  // namespace strata
