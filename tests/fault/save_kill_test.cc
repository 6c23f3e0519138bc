// A save is killed at every one of its system calls (by strace) and of its Env operations. Whenever that is, a whole
// checkpoint is found afterwards, the old or the new one, with the right content; and the next save works.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <map>

#include "absl/strings/str_format.h"
#include "checkpoint/catalog.h"
#include "checkpoint/diff.h"
#include "tests/testing/fault_env.h"
#include "tests/testing/test_checkpoint.h"

namespace strata {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;

constexpr char kVictim[] = STRATA_SAVE_VICTIM;
constexpr char kAsyncVictim[] = STRATA_ASYNC_SAVE_VICTIM;

// Exit status as a shell gives it: 128 + signal after a signal, -1 if it could not start.
int Spawn(std::vector<std::string> command) {
  std::vector<char*> argv;
  for (std::string& word : command) argv.push_back(word.data());
  argv.push_back(nullptr);
  std::vector<char*> environment;
  for (char** e = environ; *e != nullptr; ++e) environment.push_back(*e);
  // No library threads, and no leak check, which cannot run under a tracer.
  std::string extra[] = {"OPENBLAS_NUM_THREADS=1", "ASAN_OPTIONS=detect_leaks=0"};
  for (std::string& e : extra) environment.push_back(e.data());
  environment.push_back(nullptr);
  pid_t pid = 0;
  if (::posix_spawnp(&pid, argv[0], nullptr, nullptr, argv.data(), environment.data()) != 0) return -1;
  int status = 0;
  if (::waitpid(pid, &status, 0) != pid) return -1;
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
constexpr int kKilled = 128 + SIGKILL;

class SaveKillTest : public ::testing::Test {
 protected:
  SaveKillTest() {
    testing::FaultEnv env;
    EXPECT_TRUE(testing::SaveTestCheckpoint(env, first_.path(), 1, 2, 1).ok());
  }

  // A copy of a root that holds step 1.
  void MakeRoot(const TempDir& dir) {
    std::filesystem::copy(first_.path(), dir.path(), std::filesystem::copy_options::recursive);
  }

  // After a death in the save of step 2.
  void CheckSurvivor(const std::string& root, const std::string& when) {
    const auto found = FindNewestValid(Env::Posix(), root);
    ASSERT_TRUE(found.ok()) << when << ": " << found.status();
    const int64_t step = found->path.find(StepDirName(2)) != std::string::npos ? 2 : 1;
    const absl::Status check = testing::CheckTestCheckpoint(Env::Posix(), found->path, step);
    EXPECT_TRUE(check.ok()) << when << ": " << check;
    ++(step == 2 ? num_new_ : num_old_);

    testing::FaultEnv env;
    const auto next = testing::SaveTestCheckpoint(env, root, 3, 2, 1);
    ASSERT_TRUE(next.ok()) << when << ": " << next.status();
    EXPECT_TRUE(next->cleanup.ok()) << when << ": " << next->cleanup;
    EXPECT_TRUE(testing::CheckTestCheckpoint(env, next->path, 3).ok()) << when;
    EXPECT_THAT(env.List(root).value(), ElementsAre("latest", StepDirName(3))) << when;
  }

  const TempDir first_;
  int num_old_ = 0, num_new_ = 0;  // which one was found
};

constexpr char kCalls[] =
    "write,pwrite64,pwritev,fsync,fdatasync,rename,renameat,renameat2,open,openat,creat,mkdir,mkdirat,rmdir,unlink,"
    "unlinkat,close,ftruncate,flock";

struct KillPoint {
  std::string call;
  int ordinal = 0;  // strace counts each system call for itself
};

// The system calls of an unharmed save, from the first one that names the root on.
std::vector<KillPoint> KillPoints(const std::string& log, const std::string& root) {
  std::ifstream lines(log);
  std::map<std::string, int> count;
  std::vector<KillPoint> points;
  bool begun = false;
  for (std::string line; std::getline(lines, line);) {
    const size_t paren = line.find('(');
    if (paren == std::string::npos) continue;  // "+++ exited with 0 +++"
    const std::string call = line.substr(0, paren);
    const int ordinal = ++count[call];
    begun = begun || line.find(root) != std::string::npos;
    if (begun) points.push_back({call, ordinal});
  }
  return points;
}

TEST_F(SaveKillTest, AtEverySystemCall) {
  const TempDir scratch;
  const std::string log = scratch.path() + "/calls";
  if (Spawn({"strace", "-o", log, "true"}) != 0) GTEST_SKIP() << "strace cannot trace here";
  const TempDir whole;
  MakeRoot(whole);
  ASSERT_EQ(Spawn({"strace", "-o", log, "-e", absl::StrFormat("trace=%s", kCalls), kVictim, whole.path(), "2"}), 0);
  const std::vector<KillPoint> points = KillPoints(log, whole.path());
  ASSERT_THAT(points, SizeIs(::testing::Ge(50u)));
  for (const KillPoint& point : points) {
    const std::string when = absl::StrFormat("%s %d", point.call, point.ordinal);
    const TempDir dir;
    MakeRoot(dir);
    const std::string inject = absl::StrFormat("inject=%s:signal=SIGKILL:when=%d", point.call, point.ordinal);
    ASSERT_EQ(Spawn({"strace", "-o", log, "-e", "trace=" + point.call, "-e", inject, kVictim, dir.path(), "2"}),
              kKilled)
        << when;
    ASSERT_NO_FATAL_FAILURE(CheckSurvivor(dir.path(), when));
  }
  EXPECT_GT(num_old_, 30);
  EXPECT_GT(num_new_, 10);
  RecordProperty("system_calls", static_cast<int>(points.size()));
}

TEST_F(SaveKillTest, AtEveryOperation) {
  int k = 1;
  for (;; ++k) {
    const TempDir dir;
    MakeRoot(dir);
    const int status = Spawn({kVictim, dir.path(), "2", std::to_string(k)});
    if (status == 0) break;  // it has no more operations
    ASSERT_EQ(status, kKilled) << k;
    ASSERT_NO_FATAL_FAILURE(CheckSurvivor(dir.path(), absl::StrFormat("operation %d", k)));
  }
  EXPECT_GT(k, 50);
  EXPECT_GT(num_old_, 30);
  EXPECT_GT(num_new_, 5);
}

// Saves behind training: the victim trains two ranks, each with a thread that writes; step 1 is there already.
class AsyncSaveKillTest : public ::testing::Test {
 protected:
  // Steps 1 and 2 as they should be, and what is there before the victim saves step 2.
  void SetUp() override {
    ASSERT_EQ(Spawn({kAsyncVictim, first_.path(), "1"}), 0);
    ASSERT_EQ(Spawn({kAsyncVictim, second_.path(), "2"}), 0);
  }

  static std::string Root(const TempDir& dir) { return dir.path("checkpoints"); }

  void MakeRoot(const TempDir& dir) {
    std::filesystem::copy(first_.path(), dir.path(), std::filesystem::copy_options::recursive);
  }

  // After a death in the save of step 2.
  void CheckSurvivor(const TempDir& dir, const std::string& when) {
    const auto found = FindNewestValid(Env::Posix(), Root(dir));
    ASSERT_TRUE(found.ok()) << when << ": " << found.status();
    const int64_t step = found->path.find(StepDirName(2)) != std::string::npos ? 2 : 1;
    const std::string want = Root(step == 1 ? first_ : second_) + "/" + StepDirName(step);
    const auto diff = DiffCheckpoints(Env::Posix(), found->path, want);
    ASSERT_TRUE(diff.ok()) << when << ": " << diff.status();
    EXPECT_GT(diff->tensors, 20);
    EXPECT_TRUE(diff->differ.empty()) << when << ": " << diff->ToText();
    ++(step == 2 ? num_new_ : num_old_);

    testing::FaultEnv env;
    const auto next = testing::SaveTestCheckpoint(env, Root(dir), 3, 2, 1);
    ASSERT_TRUE(next.ok()) << when << ": " << next.status();
    EXPECT_TRUE(next->cleanup.ok()) << when << ": " << next->cleanup;
    EXPECT_THAT(env.List(Root(dir)).value(), ElementsAre("latest", StepDirName(3))) << when;
  }

  // Kills at every system call of the thread that writes for `rank`; how many there are.
  void KillAtEverySystemCallOf(const std::string& rank, int* calls) {
    const TempDir scratch;
    const std::string log = scratch.path("calls");
    const TempDir whole;
    MakeRoot(whole);
    const std::string trace = absl::StrFormat("trace=%s", kCalls);
    ASSERT_EQ(Spawn({kAsyncVictim, whole.path(), "2", "trace", rank, "-o", log, "-e", trace}), 0);
    const std::vector<KillPoint> points = KillPoints(log, whole.path());
    *calls = static_cast<int>(points.size());
    for (const KillPoint& point : points) {
      const std::string when = absl::StrFormat("rank %s, %s %d", rank, point.call, point.ordinal);
      const TempDir dir;
      MakeRoot(dir);
      const std::string inject = absl::StrFormat("inject=%s:signal=SIGKILL:when=%d", point.call, point.ordinal);
      ASSERT_EQ(
          Spawn({kAsyncVictim, dir.path(), "2", "trace", rank, "-o", log, "-e", "trace=" + point.call, "-e", inject}),
          kKilled)
          << when;
      ASSERT_NO_FATAL_FAILURE(CheckSurvivor(dir, when));
    }
  }

  const TempDir first_, second_;
  int num_old_ = 0, num_new_ = 0;  // which one was found
};

TEST_F(AsyncSaveKillTest, AtEverySystemCall) {
  const TempDir scratch;
  if (Spawn({"strace", "-o", scratch.path("calls"), "true"}) != 0) GTEST_SKIP() << "strace cannot trace here";
  int of_rank_0 = 0, of_rank_1 = 0;
  ASSERT_NO_FATAL_FAILURE(KillAtEverySystemCallOf("0", &of_rank_0));
  EXPECT_GT(of_rank_0, 40);
  EXPECT_GT(num_old_, 20);
  EXPECT_GT(num_new_, 10);
  ASSERT_NO_FATAL_FAILURE(KillAtEverySystemCallOf("1", &of_rank_1));
  EXPECT_GT(of_rank_1, 10);
}

TEST_F(AsyncSaveKillTest, AtEveryOperation) {
  int k = 1;
  for (;; ++k) {
    const TempDir dir;
    MakeRoot(dir);
    const int status = Spawn({kAsyncVictim, dir.path(), "2", "op", std::to_string(k)});
    if (status == 0) break;  // it has no more operations
    ASSERT_EQ(status, kKilled) << k;
    ASSERT_NO_FATAL_FAILURE(CheckSurvivor(dir, absl::StrFormat("operation %d", k)));
  }
  EXPECT_GT(k, 50);
  EXPECT_GT(num_old_, 30);
  EXPECT_GT(num_new_, 5);
}

}  // namespace
}  // namespace strata
