// The order of a commit, what survives each failure of it, and retention.

#include "checkpoint/commit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "checkpoint/catalog.h"
#include "tests/testing/fault_env.h"
#include "tests/testing/test_checkpoint.h"

namespace strata {
namespace {

using ::testing::ElementsAre;
using testing::FaultEnv;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::SaveTestCheckpoint;

std::vector<std::string> Names(const std::string& root) {
  const auto entries = ListCheckpoints(Env::Posix(), root);
  std::vector<std::string> names;
  for (const CheckpointEntry& entry : *entries) names.push_back(entry.name);
  return names;
}

absl::Status Save(const std::string& root, int64_t step, int keep) {
  FaultEnv env;
  const auto saved = SaveTestCheckpoint(env, root, step, 2, keep);
  return saved.ok() ? saved->cleanup : saved.status();
}

TEST(Commit, EverythingIsSyncedBeforeItIsNamed) {
  const TempDir dir;
  std::vector<std::string> log;
  FaultEnv env([&](std::string_view operation, const std::string& path) {
    if (operation == "sync" || operation == "rename" || operation == "syncdir") {
      log.push_back(std::string(operation) + path.substr(dir.path().size()));
    }
    return absl::OkStatus();
  });
  const auto saved = SaveTestCheckpoint(env, dir.path(), 7, 2, 1);
  ASSERT_TRUE(saved.ok()) << saved.status();
  const std::string tmp = "/step-0000000007.tmp-0";
  EXPECT_THAT(log, ElementsAre("sync" + tmp + "/data-00000.h5", "sync" + tmp + "/data-00001.h5",
                               "sync" + tmp + "/manifest.json.tmp", "rename" + tmp + "/manifest.json", "syncdir" + tmp,
                               "rename/step-0000000007", "syncdir", "sync/latest.tmp", "rename/latest", "syncdir"));
}

// The K-th operation of the second save fails as on a full disk, for every K. (A kill instead: tests/fault.)
TEST(Commit, AnyFailureLeavesACheckpoint) {
  int failed = 0;
  for (int k = 0;; ++k) {
    const TempDir dir;
    ASSERT_TRUE(Save(dir.path(), 1, 1).ok());
    int operations = 0;
    FaultEnv env([&](std::string_view, const std::string&) {
      return operations++ == k ? absl::ResourceExhaustedError("injected") : absl::OkStatus();
    });
    const auto saved = SaveTestCheckpoint(env, dir.path(), 2, 2, 1);
    const auto found = FindNewestValid(Env::Posix(), dir.path());
    ASSERT_TRUE(found.ok()) << k << ": " << found.status();
    const int64_t step = found->path.find("step-0000000002") != std::string::npos ? 2 : 1;
    const absl::Status check = testing::CheckTestCheckpoint(Env::Posix(), found->path, step);
    EXPECT_TRUE(check.ok()) << k << ": " << check;
    if (saved.ok()) {
      EXPECT_EQ(step, 2) << k;
    }
    if (operations <= k) break;  // the save has no more operations
    EXPECT_EQ((saved.ok() ? saved->cleanup : saved.status()).code(), absl::StatusCode::kResourceExhausted) << k;
    failed += !saved.ok();
    ASSERT_TRUE(Save(dir.path(), 3, 1).ok()) << k;
    EXPECT_THAT(Names(dir.path()), ElementsAre("step-0000000003")) << k;
  }
  EXPECT_GT(failed, 20);
}

TEST(Commit, KeepsTheNewest) {
  const TempDir dir;
  for (int64_t step = 1; step <= 5; ++step) ASSERT_TRUE(Save(dir.path(), step, 3).ok());
  EXPECT_THAT(Names(dir.path()), ElementsAre("step-0000000005", "step-0000000004", "step-0000000003"));
  ASSERT_TRUE(Save(dir.path(), 6, 1).ok());
  EXPECT_THAT(Names(dir.path()), ElementsAre("step-0000000006"));
  EXPECT_EQ(ReadText(Env::Posix(), dir.path() + "/latest").value(), "step-0000000006\n");
  EXPECT_FALSE(Env::Posix().Exists(dir.path() + "/.trash"));
  EXPECT_EQ(Save(dir.path(), 7, 0).code(), absl::StatusCode::kInvalidArgument);
}

// After a restart from an older step the one just written stays, though others have higher numbers.
TEST(Commit, NeverRemovesTheOneJustWritten) {
  const TempDir dir;
  for (const int64_t step : {8, 9}) ASSERT_TRUE(Save(dir.path(), step, 2).ok());
  ASSERT_TRUE(Save(dir.path(), 3, 1).ok());
  EXPECT_THAT(Names(dir.path()), ElementsAre("step-0000000003"));
}

TEST(Commit, ReplacesTheSameStep) {
  const TempDir dir;
  ASSERT_TRUE(Save(dir.path(), 4, 1).ok());
  const std::string path = dir.path() + "/step-0000000004";
  std::filesystem::resize_file(path + "/data-00001.h5", 100);
  ASSERT_FALSE(VerifyCheckpoint(Env::Posix(), path).empty());
  ASSERT_TRUE(Save(dir.path(), 4, 1).ok());
  EXPECT_THAT(VerifyCheckpoint(Env::Posix(), path), IsEmpty());
  EXPECT_THAT(Names(dir.path()), ElementsAre("step-0000000004"));
}

TEST(Commit, RemovesLeftovers) {
  const TempDir dir;
  Env& env = Env::Posix();
  ASSERT_TRUE(Save(dir.path(), 1, 1).ok());
  const auto broken = BeginSave(env, dir.path(), 2), next = BeginSave(env, dir.path(), 3);
  ASSERT_TRUE(broken.ok() && next.ok());
  EXPECT_FALSE(env.Exists(*broken));  // nothing in it could ever be loaded
  ASSERT_TRUE(env.Rename(dir.path() + "/step-0000000001", dir.path() + "/step-0000000002.tmp-4").ok());
  const auto found = FindNewestValid(env, dir.path());  // whole, but not renamed: the only valid one
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->path, dir.path() + "/step-0000000002.tmp-4");
  ASSERT_TRUE(BeginSave(env, dir.path(), 2).ok());
  EXPECT_TRUE(env.Exists(found->path));
  ASSERT_TRUE(Save(dir.path(), 5, 3).ok());
  EXPECT_THAT(Names(dir.path()), ElementsAre("step-0000000005"));
}

class CoverageTest : public ::testing::Test {
 protected:
  // Saves boxes of a tensor "w" of 4 x 6 float32, one rank a box.
  absl::Status Commit(const std::vector<std::pair<Shape, Shape>>& boxes) {
    const auto tmp_dir = BeginSave(Env::Posix(), dir_.path(), 1);
    std::vector<ShardRecord> records;
    for (const auto& [offset, size] : boxes) {
      testing::RankBoxes mine;
      mine.Add({"w", DType::kF32, {4, 6}}, 1, offset, size);
      records.push_back(WriteShard(Env::Posix(), *tmp_dir, static_cast<int>(records.size()), mine.boxes).value());
    }
    return CommitCheckpoint(Env::Posix(), dir_.path(), 1, *tmp_dir, records, {}, 1).status();
  }
  TempDir dir_;
};

TEST_F(CoverageTest, ExactlyOnce) { EXPECT_TRUE(Commit({{{0, 0}, {2, 6}}, {{2, 0}, {2, 3}}, {{2, 3}, {2, 3}}}).ok()); }

TEST_F(CoverageTest, RefusesAGap) {
  const absl::Status status = Commit({{{0, 0}, {2, 6}}, {{2, 0}, {2, 3}}});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("w: its boxes cover 18 of 24 elements"));
  EXPECT_EQ(FindNewestValid(Env::Posix(), dir_.path()).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(CoverageTest, RefusesAnOverlap) {
  // Sizes add up to the whole, so only the overlap tells.
  const absl::Status status = Commit({{{0, 0}, {2, 6}}, {{1, 0}, {2, 6}}});
  EXPECT_THAT(std::string(status.message()), HasSubstr("w: box [0:2, 0:6] of data-00000.h5 and box [1:3, 0:6] of"));
}

TEST(Commit, RefusesRanksThatDisagree) {
  const TempDir dir;
  const auto tmp_dir = BeginSave(Env::Posix(), dir.path(), 1);
  testing::RankBoxes a, b;
  a.Add({"w", DType::kF32, {4, 6}}, 1, {0, 0}, {4, 3});
  b.Add({"w", DType::kF32, {4, 7}}, 1, {0, 3}, {4, 3});
  const std::vector<ShardRecord> records = {WriteShard(Env::Posix(), *tmp_dir, 0, a.boxes).value(),
                                            WriteShard(Env::Posix(), *tmp_dir, 1, b.boxes).value()};
  const auto saved = CommitCheckpoint(Env::Posix(), dir.path(), 1, *tmp_dir, records, {}, 1);
  EXPECT_THAT(std::string(saved.status().message()), HasSubstr("w: f32[4, 7] in data-00001.h5, but f32[4, 6] before"));
}

TEST(Commit, RefusesATruncatedFileAndBadText) {
  const TempDir dir;
  const auto tmp_dir = BeginSave(Env::Posix(), dir.path(), 1);
  const testing::RankBoxes mine = testing::TestBoxes(0, 1, 1);
  const std::vector<ShardRecord> records = {WriteShard(Env::Posix(), *tmp_dir, 0, mine.boxes).value()};
  CheckpointMeta meta;
  meta.config = "\xff";
  EXPECT_THAT(std::string(CommitCheckpoint(Env::Posix(), dir.path(), 1, *tmp_dir, records, meta, 1).status().message()),
              HasSubstr("not UTF-8"));
  std::filesystem::resize_file(*tmp_dir + "/data-00000.h5", 512);
  EXPECT_EQ(CommitCheckpoint(Env::Posix(), dir.path(), 1, *tmp_dir, records, {}, 1).status().code(),
            absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace strata
