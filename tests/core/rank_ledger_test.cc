// The ledger in which ranks say what they do: read by other threads and processes, also of one that is stopped or killed.

#include "core/comm/rank_ledger.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "absl/strings/str_format.h"
#include "core/comm/communicator.h"

namespace strata {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

const CommSpec kDp{"dp", {0, 1}};

std::string NameOf(const char* what) { return absl::StrFormat("/strata-test-%d-%s", ::getpid(), what); }

TEST(RankLedger, AnActivityIsWhatWasSaidLast) {
  const auto ledger = RankLedger::Make(2);
  EXPECT_FALSE(ledger->known(0));
  EXPECT_EQ(ledger->Describe(0), "is not known here");
  ledger->Enter(0);
  EXPECT_EQ(ledger->Describe(0), "has not said what it does");
  Activity& a = ledger->activity(0);
  a.Set("issuing train F0.3");
  a.Step(12, "blocks.5.mlp");
  EXPECT_EQ(ToString(a.Get()), "issuing train F0.3 step 12 in blocks.5.mlp");
  EXPECT_THAT(ledger->Describe(0), StartsWith("has been issuing train F0.3 step 12 in blocks.5.mlp for 0."));
  a.Set("reading data");
  EXPECT_EQ(ToString(a.Get()), "reading data");
  a.Set(std::string(500, 'x'));
  a.Step(1, std::string(500, 'y'));
  EXPECT_EQ(ToString(a.Get()), absl::StrFormat("%s step 1 in %s", std::string(63, 'x'), std::string(87, 'y')));
}

TEST(RankLedger, AReaderNeverSeesHalfOfAnActivity) {
  const auto ledger = RankLedger::Make(1);
  Activity& a = ledger->activity(0);
  a.Set("a");
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    for (int i = 0; !stop; ++i) a.Set(std::string(60, static_cast<char>('a' + i % 26)));
  });
  for (int i = 0; i < 20'000; ++i) {
    const std::string seen = ToString(a.Get());
    EXPECT_EQ(seen, std::string(seen.size(), seen[0])) << i;
    if (HasFailure()) break;
  }
  stop = true;
  writer.join();
}

TEST(RankLedger, CountsTheCallsOfEachCommunicator) {
  const auto ledger = RankLedger::Make(2);
  ledger->Enter(1);
  CommRecord* dp = ledger->Connect(1, kDp);
  CommRecord* tp = ledger->Connect(1, {"tp", {1}});
  dp->Issue();
  dp->Issue();
  dp->Progress(2, 1);
  EXPECT_EQ(ledger->Find(1, KeyOf(kDp)), dp);
  EXPECT_EQ(ledger->Find(0, KeyOf(kDp)), nullptr);
  EXPECT_NE(KeyOf(kDp), KeyOf({"dp", {0, 2}}));
  EXPECT_EQ(dp->name(), "dp");
  EXPECT_EQ(dp->issued(), 2u);
  EXPECT_EQ(dp->ended(), 1u);
  EXPECT_EQ(ledger->Unfinished(1, KeyOf({"tp", {1}})), dp);
  EXPECT_EQ(ledger->Unfinished(1, KeyOf(kDp)), nullptr);
  tp->Issue();
  EXPECT_EQ(ledger->Unfinished(1, KeyOf(kDp)), tp);
  dp->Free();
  EXPECT_EQ(ledger->Find(1, KeyOf(kDp)), nullptr);
  EXPECT_EQ(ledger->Connect(1, kDp), dp);  // its place is free again
  EXPECT_EQ(dp->issued(), 0u);
  for (int i = 2; i < RankLedger::kMaxComms; ++i) EXPECT_NE(ledger->Connect(1, kDp), nullptr);
  EXPECT_EQ(ledger->Connect(1, kDp), nullptr);
}

TEST(RankLedger, ProcessesSeeEachOtherByName) {
  const std::string name = NameOf("by-name");
  const auto one = RankLedger::Open(name, 3), other = RankLedger::Open(name, 3);
  ASSERT_TRUE(one.ok()) << one.status();
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_TRUE(absl::IsInvalidArgument(RankLedger::Open(name, 4).status()));
  (*one)->Enter(2);
  (*one)->activity(2).Set("reading data");
  (*one)->Connect(2, kDp)->Issue();
  EXPECT_THAT((*other)->Describe(2), StartsWith("has been reading data for "));
  ASSERT_NE((*other)->Find(2, KeyOf(kDp)), nullptr);
  EXPECT_EQ((*other)->Find(2, KeyOf(kDp))->issued(), 1u);
  RankLedger::Unlink(name);
  const auto next = RankLedger::Open(name, 4);  // another one of that name
  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_FALSE((*next)->known(2));
  RankLedger::Unlink(name);
}

TEST(RankLedger, AStoppedAndAKilledProcessAreTold) {
  const std::string name = NameOf("killed");
  const auto ledger = RankLedger::Open(name, 2);
  ASSERT_TRUE(ledger.ok()) << ledger.status();
  const pid_t child = ::fork();
  if (child == 0) {
    const auto mine = RankLedger::Open(name, 2);
    if (!mine.ok()) ::_exit(1);
    (*mine)->Enter(1);
    (*mine)->activity(1).Set("reading data");
    for (;;) ::pause();
  }
  const auto says = [&] { return (*ledger)->Describe(1); };
  const auto wait_for = [&](const std::string& text) {
    for (int i = 0; i < 500 && says().find(text) == std::string::npos; ++i) ::usleep(10'000);
    EXPECT_THAT(says(), HasSubstr(text));
  };
  wait_for("has been reading data for ");
  ::kill(child, SIGSTOP);
  wait_for(absl::StrFormat("; its process %d is stopped", child));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  wait_for(absl::StrFormat("; its process %d has ended", child));
  EXPECT_THAT(says(), StartsWith("has been reading data for "));
  RankLedger::Unlink(name);
}

}  // namespace
}  // namespace strata
