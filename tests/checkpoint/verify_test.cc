// Damage of any kind is found and named; the newest undamaged checkpoint is the one that is loaded.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "absl/strings/str_format.h"
#include "checkpoint/catalog.h"
#include "checkpoint/describe.h"
#include "checkpoint/reader.h"
#include "tests/testing/fault_env.h"
#include "tests/testing/test_checkpoint.h"

namespace strata {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class VerifyTest : public ::testing::Test {
 protected:
  void SetUp() override { path_ = Save(1); }
  std::string Save(int64_t step) {
    testing::FaultEnv env;
    const auto saved = testing::SaveTestCheckpoint(env, dir_.path(), step, 4, 3);
    EXPECT_TRUE(saved.ok()) << saved.status();
    return saved.ok() ? saved->path : "";
  }
  std::vector<std::string> Verify() { return VerifyCheckpoint(Env::Posix(), path_); }

  TempDir dir_;
  std::string path_;
};

// Xors one byte of an open file.
void Flip(int fd, int64_t at, uint8_t mask) {
  uint8_t byte = 0;
  ASSERT_EQ(::pread(fd, &byte, 1, at), 1);
  byte ^= mask;
  ASSERT_EQ(::pwrite(fd, &byte, 1, at), 1);
}

// Every byte of the manifest, and every 5th of the data files: HDF5's header, its tables, data, gaps.
TEST_F(VerifyTest, FindsEveryFlippedByte) {
  ASSERT_THAT(Verify(), IsEmpty());
  const std::vector<std::string> files = Env::Posix().List(path_).value();
  ASSERT_THAT(files, ElementsAre("data-00000.h5", "data-00001.h5", "data-00002.h5", "data-00003.h5", "manifest.json"));
  int flips = 0;
  for (const std::string& file : files) {
    const std::string path = path_ + "/" + file;
    const auto size = static_cast<int64_t>(std::filesystem::file_size(path));
    const int fd = ::open(path.c_str(), O_RDWR);
    ASSERT_GE(fd, 0);
    for (int64_t at = 0; at < size; at += file == "manifest.json" ? 1 : 5) {
      const auto mask = static_cast<uint8_t>(1 << (at % 8));
      Flip(fd, at, mask);
      const std::vector<std::string> problems = Verify();
      ASSERT_THAT(problems, ElementsAre(HasSubstr(path))) << file << " byte " << at;
      Flip(fd, at, mask);
      ++flips;
    }
    ::close(fd);
  }
  EXPECT_THAT(Verify(), IsEmpty());
  EXPECT_GT(flips, 4000);
}

TEST_F(VerifyTest, NamesTheRangeAndTheTensors) {
  const auto reader = CheckpointReader::Open(Env::Posix(), path_);
  ASSERT_TRUE(reader.ok());
  const TensorRecord& tensor = reader->tensors()[1];
  const int fd = ::open((path_ + "/" + reader->manifest().files[tensor.boxes[0].file].name).c_str(), O_RDWR);
  Flip(fd, tensor.boxes[0].byte_offset, 0x40);
  ::close(fd);
  EXPECT_THAT(Verify(), ElementsAre(AllOf(HasSubstr("data-00000.h5: bytes 0.."), HasSubstr("are damaged (block 0"),
                                          HasSubstr("in it: step_count, embed.weight, "))));
  const absl::Status check = testing::CheckTestCheckpoint(Env::Posix(), path_, 1);
  EXPECT_EQ(check.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(check.message()), HasSubstr("data-00000.h5"));
}

TEST_F(VerifyTest, FindsTruncatedGrownAndMissingFiles) {
  const std::string first = path_ + "/data-00000.h5", second = path_ + "/data-00001.h5",
                    third = path_ + "/data-00002.h5";
  const auto size = std::filesystem::file_size(first);
  std::filesystem::resize_file(first, size - 1);
  std::filesystem::resize_file(second, std::filesystem::file_size(second) + 1);
  std::filesystem::remove(third);
  EXPECT_THAT(Verify(), ElementsAre(HasSubstr(absl::StrFormat("%s: has %d bytes, but %d were", first, size - 1, size)),
                                    HasSubstr(second), HasSubstr(third)));
  std::filesystem::resize_file(path_ + "/manifest.json", 300);
  EXPECT_THAT(Verify(), ElementsAre(HasSubstr("manifest.json: the manifest's own checksum fails")));
  std::filesystem::remove(path_ + "/manifest.json");
  EXPECT_THAT(Verify(), ElementsAre(HasSubstr("manifest.json")));
}

TEST_F(VerifyTest, FollowsNoLinks) {
  const std::string file = path_ + "/data-00000.h5", elsewhere = dir_.path() + "/elsewhere";
  std::filesystem::rename(file, elsewhere);
  std::filesystem::create_symlink(elsewhere, file);
  EXPECT_THAT(Verify(), ElementsAre(HasSubstr(file)));
}

TEST_F(VerifyTest, NewestValidSkipsTheDamaged) {
  const std::string second = Save(2), third = Save(3);
  std::filesystem::resize_file(third + "/data-00002.h5", 10);
  std::filesystem::remove(second + "/manifest.json");
  const auto found = FindNewestValid(Env::Posix(), dir_.path());
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(found->path, path_);
  EXPECT_THAT(found->skipped, ElementsAre(HasSubstr(third + "/data-00002.h5"), HasSubstr(second + "/manifest.json")));
  std::filesystem::remove(path_ + "/data-00000.h5");
  const absl::Status none = FindNewestValid(Env::Posix(), dir_.path()).status();
  EXPECT_EQ(none.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(none.message()), HasSubstr(path_ + "/data-00000.h5"));
  EXPECT_EQ(FindNewestValid(Env::Posix(), dir_.path() + "/none").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(VerifyTest, ListsByStepAndIgnoresOtherNames) {
  for (const char* name : {"step-12", "step-0000000001.tmp-3", "step-", "step-x", "step-5.old", "step--1", "notes"}) {
    ASSERT_TRUE(Env::Posix().MakeDirs(dir_.path() + "/" + name).ok());
  }
  const auto entries = ListCheckpoints(Env::Posix(), dir_.path());
  ASSERT_TRUE(entries.ok());
  std::vector<std::string> names;
  for (const CheckpointEntry& entry : *entries) names.push_back(entry.name + (entry.committed ? "" : " unfinished"));
  EXPECT_THAT(names, ElementsAre("step-12", "step-0000000001", "step-0000000001.tmp-3 unfinished"));
}

TEST_F(VerifyTest, Descriptions) {
  const std::string second = Save(2);
  std::filesystem::resize_file(second + "/data-00003.h5", 10);
  ASSERT_TRUE(Env::Posix().MakeDirs(dir_.path() + "/step-0000000003.tmp-0").ok());
  const auto text = DescribeCheckpoints(Env::Posix(), dir_.path());
  ASSERT_TRUE(text.ok());
  EXPECT_THAT(*text,
              AllOf(HasSubstr("step-0000000003.tmp-0    unfinished save\nstep-0000000002 "),
                    HasSubstr("8 tensors     4 files  dp=2 tp=2        next sample 128  (latest)\nstep-0000000001 "),
                    HasSubstr("next sample 64\n")));
  VerifyReport report = DescribeVerify(Env::Posix(), dir_.path());
  EXPECT_FALSE(report.ok);
  EXPECT_THAT(report.text, AllOf(HasSubstr(second + ": 1 problems\n  " + second + "/data-00003.h5: has 10 bytes"),
                                 HasSubstr(path_ + ": ok\n")));
  report = DescribeVerify(Env::Posix(), path_);
  EXPECT_TRUE(report.ok);
  EXPECT_EQ(report.text, path_ + ": ok\n");
  EXPECT_FALSE(DescribeVerify(Env::Posix(), dir_.path() + "/none").ok);
  std::filesystem::resize_file(second + "/manifest.json", 10);
  EXPECT_THAT(DescribeCheckpoints(Env::Posix(), dir_.path()).value(), HasSubstr("DAMAGED"));
}

}  // namespace
}  // namespace strata
