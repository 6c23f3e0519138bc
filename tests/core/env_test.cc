#include "core/base/env.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/testing/temp_dir.h"

namespace strata {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::span<const std::byte> Bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

class EnvTest : public ::testing::Test {
 protected:
  std::string Path(const std::string& name) const { return dir_.path(name); }

  const TempDir dir_;
  const std::string root_ = dir_.path();
  Env& env_ = Env::Posix();
};

TEST_F(EnvTest, WritesInPlaceAndAppends) {
  auto file = env_.OpenWritable(Path("a"), Env::Open::kTruncate);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE((*file)->Append(Bytes("hello")).ok());
  EXPECT_TRUE((*file)->WriteAt(7, Bytes("world")).ok());  // leaves a hole of two zero bytes
  EXPECT_TRUE((*file)->Append(Bytes("!")).ok());
  EXPECT_TRUE((*file)->WriteAt(0, Bytes("J")).ok());
  EXPECT_TRUE((*file)->Sync().ok());
  EXPECT_TRUE((*file)->Close().ok());
  EXPECT_EQ(*ReadText(env_, Path("a")), std::string("Jello\0\0world!", 13));

  auto again = env_.OpenWritable(Path("a"), Env::Open::kExisting);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_TRUE((*again)->Append(Bytes("?")).ok());
  EXPECT_TRUE((*again)->Close().ok());
  EXPECT_EQ(ReadText(env_, Path("a"))->substr(12), "!?");

  EXPECT_TRUE((*env_.OpenWritable(Path("a"), Env::Open::kTruncate))->Close().ok());
  EXPECT_EQ(*ReadText(env_, Path("a")), "");
}

TEST_F(EnvTest, ReadsARangeAndReportsTheEnd) {
  ASSERT_TRUE(WriteTextAtomically(env_, Path("a"), "0123456789").ok());
  auto file = env_.OpenReadable(Path("a"));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->size(), 10);
  std::string text(4, ' ');
  EXPECT_TRUE((*file)->ReadAt(3, std::as_writable_bytes(std::span(text))).ok());
  EXPECT_EQ(text, "3456");
  const absl::Status past = (*file)->ReadAt(7, std::as_writable_bytes(std::span(text)));
  EXPECT_EQ(past.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(past.message()), HasSubstr(Path("a")));
}

TEST_F(EnvTest, UserFilesAreReadWholeAndThroughLinks) {
  ASSERT_TRUE(WriteTextAtomically(env_, Path("a"), "whole").ok());
  ASSERT_TRUE(WriteTextAtomically(env_, Path("empty"), "").ok());
  ASSERT_EQ(::symlink(Path("a").c_str(), Path("link").c_str()), 0);
  EXPECT_EQ(*ReadUserFile(env_, Path("a")), "whole");
  EXPECT_EQ(*ReadUserFile(env_, Path("link")), "whole");
  EXPECT_EQ(*ReadUserFile(env_, Path("empty")), "");
}

TEST_F(EnvTest, ErrorsNameThePathAndTheSystemError) {
  const absl::Status missing = env_.OpenReadable(Path("none")).status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.message()), HasSubstr(Path("none")));
  EXPECT_THAT(std::string(missing.message()), HasSubstr("No such file or directory"));

  EXPECT_EQ(env_.OpenWritable(Path("none"), Env::Open::kExisting).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(env_.OpenLinked(Path("none")).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(env_.List(Path("none")).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(env_.SyncDir(Path("none")).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(env_.Rename(Path("none"), Path("b")).code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(env_.OpenReadable(root_).status().message()), HasSubstr("not a regular file"));
}

TEST_F(EnvTest, DoesNotFollowLinksOrHangOnPipes) {
  ASSERT_TRUE(WriteTextAtomically(env_, Path("a"), "x").ok());
  ASSERT_EQ(::symlink(Path("a").c_str(), Path("link").c_str()), 0);
  ASSERT_EQ(::mkfifo(Path("pipe").c_str(), 0600), 0);
  EXPECT_FALSE(env_.OpenReadable(Path("link")).ok());
  EXPECT_TRUE(env_.OpenLinked(Path("link")).ok());
  EXPECT_FALSE(env_.OpenReadable(Path("pipe")).ok());
}

TEST_F(EnvTest, FoldersAreMadeListedRenamedAndRemoved) {
  ASSERT_TRUE(env_.MakeDirs(Path("x/y/z")).ok());
  ASSERT_TRUE(env_.MakeDirs(Path("x/y/z")).ok());
  ASSERT_TRUE(WriteTextAtomically(env_, Path("x/b"), "1").ok());
  ASSERT_TRUE(WriteTextAtomically(env_, Path("x/a"), "2").ok());
  EXPECT_THAT(*env_.List(Path("x")), ElementsAre("a", "b", "y"));
  EXPECT_FALSE(env_.MakeDirs(Path("x/a/deeper")).ok());
  EXPECT_TRUE(env_.SyncDir(Path("x")).ok());
  EXPECT_TRUE(env_.Rename(Path("x"), Path("w")).ok());
  EXPECT_FALSE(env_.Exists(Path("x")));
  EXPECT_TRUE(env_.Exists(Path("w/y/z")));
  EXPECT_TRUE(env_.RemoveAll(Path("w")).ok());
  EXPECT_FALSE(env_.Exists(Path("w")));
  EXPECT_TRUE(env_.RemoveAll(Path("w")).ok());
}

TEST_F(EnvTest, RenameOntoAFullFolderIsAlreadyExists) {
  ASSERT_TRUE(env_.MakeDirs(Path("from")).ok());
  ASSERT_TRUE(env_.MakeDirs(Path("to/full")).ok());
  EXPECT_EQ(env_.Rename(Path("from"), Path("to")).code(), absl::StatusCode::kAlreadyExists);
}

TEST_F(EnvTest, AtomicTextReplacesAndLeavesNoTemporary) {
  ASSERT_TRUE(WriteTextAtomically(env_, Path("t"), "old").ok());
  ASSERT_TRUE(WriteTextAtomically(env_, Path("t"), "new text").ok());
  EXPECT_EQ(*ReadText(env_, Path("t")), "new text");
  EXPECT_THAT(*env_.List(root_), ElementsAre("t"));

  ASSERT_TRUE(env_.MakeDirs(Path("folder/inside")).ok());
  EXPECT_FALSE(WriteTextAtomically(env_, Path("folder"), "x").ok());  // a folder stands there: the rename fails
  EXPECT_FALSE(env_.Exists(Path("folder.tmp")));
}

TEST_F(EnvTest, ReadTextRefusesLargeFiles) {
  ASSERT_TRUE(WriteTextAtomically(env_, Path("t"), "12345").ok());
  EXPECT_EQ(*ReadText(env_, Path("t"), 5), "12345");
  EXPECT_EQ(ReadText(env_, Path("t"), 4).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(KernelText, HasAllOfIt) {
  const absl::StatusOr<std::string> status = ReadKernelText("/proc/self/status");
  ASSERT_TRUE(status.ok()) << status.status();
  EXPECT_NE(status->find("\nVmRSS:"), std::string::npos);
  EXPECT_EQ(status->back(), '\n');
  EXPECT_EQ(ReadKernelText("/proc/none").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace strata
