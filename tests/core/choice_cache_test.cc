#include "core/kernels/choice_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "tests/testing/temp_dir.h"

namespace strata {
namespace {

using ::testing::Pointee;

class ChoiceCacheTest : public ::testing::Test {
 protected:
  ChoiceCacheTest() { setenv("STRATA_CACHE", folder().c_str(), 1); }  // NOLINT(concurrency-mt-unsafe)
  ~ChoiceCacheTest() override { unsetenv("STRATA_CACHE"); }           // NOLINT(concurrency-mt-unsafe)
  std::string folder() const { return dir_.path("new/cache"); }
  static ChoiceCache Open(const std::string& versions = "1") { return {Env::Posix(), "gemm", "A GPU", versions}; }

  TempDir dir_;
};

TEST_F(ChoiceCacheTest, KeepsChoicesForTheNextStart) {
  ChoiceCache first = Open();
  EXPECT_EQ(first.Find("a"), nullptr);
  first.Put("a", "sm90 8 0 wide");
  first.Put("b", "old");
  first.Put("b", "new");
  const ChoiceCache next = Open();
  EXPECT_THAT(next.Find("a"), Pointee(std::string("sm90 8 0 wide")));
  EXPECT_THAT(next.Find("b"), Pointee(std::string("new")));
  EXPECT_TRUE(Env::Posix().Exists(folder() + "/gemm-A-GPU-1.txt"));
  EXPECT_EQ(Open("2").Find("a"), nullptr) << "other versions have a file of their own";
}

TEST_F(ChoiceCacheTest, AFileThatCannotBeWrittenOrMakesNoSenseCostsASearch) {
  ASSERT_TRUE(Env::Posix().MakeDirs(folder()).ok());
  ASSERT_TRUE(WriteTextAtomically(Env::Posix(), folder() + "/gemm-A-GPU-1.txt", "\n\nalone\na b c\n").ok());
  ChoiceCache cache = Open();
  EXPECT_THAT(cache.Find("a"), Pointee(std::string("b c")));
  EXPECT_THAT(cache.Find("alone"), Pointee(std::string()));
  setenv("STRATA_CACHE", "/proc/nowhere", 1);  // NOLINT(concurrency-mt-unsafe)
  ChoiceCache lost = Open();
  lost.Put("a", "b");
  EXPECT_THAT(lost.Find("a"), Pointee(std::string("b")));
  EXPECT_EQ(Open().Find("a"), nullptr);
}

TEST(ChoiceCache, WithoutAFileIsOfThisProcess) {
  ChoiceCache cache;
  cache.Put("a", "b");
  EXPECT_THAT(cache.Find("a"), Pointee(std::string("b")));
}

}  // namespace
}  // namespace strata
