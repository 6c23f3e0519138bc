#include "launch/rendezvous/outcome.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>

#include "launch/rendezvous/log_tail.h"
#include "tests/testing/temp_dir.h"

namespace strata {
namespace {

RankStatus Exited(int code, int64_t time_ns) { return {RankStatus::kExited, code, 1, time_ns}; }
RankStatus Killed(int signal, int64_t time_ns) { return {RankStatus::kKilled, signal, 1, time_ns}; }
const RankStatus kStopped{RankStatus::kRunning, 0, 1, 0};

struct Case {
  std::vector<RankStatus> ranks;
  int exit_code, causal_rank;
  std::string description;
};

TEST(Outcome, TheFirstFailureThatIsNoVictimIsTheCause) {
  const Case cases[] = {
      {{Exited(0, 1), Exited(0, 2)}, 0, -1, ""},
      {{Exited(75, 1), Exited(75, 2)}, 75, -1, ""},
      {{Exited(0, 1), Exited(75, 2)}, 75, -1, ""},
      {{Exited(1, 3), Exited(64, 2)}, 64, 1, "rank 1 failed first: exit code 64\nrank 0: exit code 1"},
      {{Exited(69, 1), Killed(SIGKILL, 5), Exited(69, 2), kStopped, kStopped, kStopped, Exited(69, 3)},
       137,
       1,
       "rank 1 failed first: killed by signal 9 (Killed)\nranks 0, 2, 6: lost a peer; ranks 3-5: stopped with them"},
      {{Exited(69, 2), Exited(69, 1)}, 69, 1, "rank 1 failed first: lost a peer\nrank 0: lost a peer"},
      {{Exited(124, 7), kStopped, Exited(69, 6)},
       124,
       0,
       "rank 0 failed first: gave up waiting (exit code 124)\nrank 2: lost a peer; rank 1: stopped with them"},
      {{{}, Exited(1, 1)}, 1, 1, "rank 1 failed first: exit code 1\nrank 0: stopped with them"},
      {{Exited(1, 1)}, 1, 0, "rank 0 failed first: exit code 1"},
  };
  for (const Case& c : cases) {
    const JobOutcome outcome = JudgeRanks(c.ranks);
    EXPECT_EQ(outcome.exit_code, c.exit_code) << c.description;
    EXPECT_EQ(outcome.causal_rank, c.causal_rank) << c.description;
    EXPECT_EQ(outcome.description, c.description);
  }
}

TEST(Outcome, StatusesSurviveTheirFiles) {
  const TempDir dir;
  Env& env = Env::Posix();
  EXPECT_EQ(ReadRankStatus(env, dir.path(""), 3).state, RankStatus::kUnknown);
  for (const RankStatus& s : {RankStatus{RankStatus::kRunning, 0, 4321, 0}, Killed(11, 1'000'000'000'000)}) {
    ASSERT_TRUE(WriteRankStatus(env, dir.path(""), 3, s).ok());
    const RankStatus read = ReadRankStatus(env, dir.path(""), 3);
    EXPECT_EQ(read.state, s.state);
    EXPECT_EQ(read.value, s.value);
    EXPECT_EQ(read.supervisor, s.supervisor);
    EXPECT_EQ(read.time_ns, s.time_ns);
  }
  for (const char* bad : {"", "running", "running x 1 2", "running 0 1 2 3", "flying 0 1 2"}) {
    ASSERT_TRUE(WriteTextAtomically(env, RankStatusPath(dir.path(""), 3), bad).ok());
    EXPECT_EQ(ReadRankStatus(env, dir.path(""), 3).state, RankStatus::kUnknown) << bad;
  }
}

TEST(Outcome, ALogIsFollowedFromWhereItWas) {
  const TempDir dir;
  Env& env = Env::Posix();
  const std::string path = dir.path("log");
  LogTail none(env, path);
  EXPECT_EQ(none.Next(), "");
  ASSERT_TRUE(WriteTextAtomically(env, path, "old\n").ok());
  LogTail tail(env, path);
  EXPECT_EQ(tail.LastLines(3), "");
  ASSERT_TRUE(WriteTextAtomically(env, path, "old\none\ntwo\n").ok());
  EXPECT_EQ(tail.Next(), "one\ntwo\n");
  EXPECT_EQ(tail.Next(), "");
  EXPECT_EQ(none.Next(), "old\none\ntwo\n");
  EXPECT_EQ(tail.LastLines(3), "one\ntwo");
  EXPECT_EQ(tail.LastLines(1), "two");
  EXPECT_EQ(none.LastLines(2), "one\ntwo");
}

}  // namespace
}  // namespace strata
