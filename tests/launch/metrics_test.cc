#include "launch/metrics/metrics.h"

#include <cmath>
#include <cstdio>
#include <filesystem>

#include <gtest/gtest.h>

#include "launch/metrics/progress.h"

namespace strata {
namespace {

class MetricsTest : public testing::Test {
 protected:
  void SetUp() override {
    const testing::TestInfo& info = *testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::path(testing::TempDir()) / (std::string("strata_metrics_") + info.name());
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    path_ = (folder_ / "metrics.jsonl").string();
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string Text() { return *ReadText(Env::Posix(), path_); }

  std::filesystem::path folder_;
  std::string path_;
};

TEST_F(MetricsTest, OneLineAStepAtOnceAndInOrder) {
  auto writer = MetricsWriter::Open(Env::Posix(), path_, 0);
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_TRUE((*writer)->Write(std::vector<Metric>{{"step", int64_t{1}}, {"loss", 7.5}, {"split", "train"}}).ok());
  EXPECT_EQ(Text(), "{\"step\":1,\"loss\":7.5,\"split\":\"train\"}\n");  // before Close
  ASSERT_TRUE((*writer)->Write(std::vector<Metric>{{"step", int64_t{2}}, {"loss", std::nan("")}}).ok());
  ASSERT_TRUE((*writer)->Close().ok());
  EXPECT_EQ(Text(), "{\"step\":1,\"loss\":7.5,\"split\":\"train\"}\n{\"step\":2,\"loss\":null}\n");
}

TEST_F(MetricsTest, ResumeKeepsEarlierStepsAndDropsRepeatedAndTornOnes) {
  ASSERT_TRUE(
      WriteTextAtomically(Env::Posix(), path_, "{\"step\":1}\n{\"step\":2}\nnot json\n{\"step\":3}\n{\"step\":4,\"lo")
          .ok());
  auto writer = MetricsWriter::Open(Env::Posix(), path_, 3);
  ASSERT_TRUE(writer.ok()) << writer.status();
  ASSERT_TRUE((*writer)->Write(std::vector<Metric>{{"step", int64_t{3}}, {"again", int64_t{1}}}).ok());
  EXPECT_EQ(Text(), "{\"step\":1}\n{\"step\":2}\n{\"step\":3,\"again\":1}\n");
}

TEST_F(MetricsTest, StartingAnewDropsTheOldFile) {
  ASSERT_TRUE(WriteTextAtomically(Env::Posix(), path_, "{\"step\":1}\n").ok());
  ASSERT_TRUE(MetricsWriter::Open(Env::Posix(), path_, 0).ok());
  EXPECT_EQ(Text(), "");
}

TEST_F(MetricsTest, AMissingFolderIsAnError) {
  EXPECT_FALSE(MetricsWriter::Open(Env::Posix(), (folder_ / "none" / "m.jsonl").string(), 0).ok());
}

const ProgressState kState{.step = 50, .steps = 1000, .loss = 4.1234, .tokens_per_s = 12345, .eta_s = 62};

TEST(Progress, GoldenLines) {
  EXPECT_EQ(RenderProgress(kState, 0), "step 50/1000  loss 4.1234  12.3k tok/s  ETA 1:02");
  EXPECT_EQ(RenderProgress(kState, 79),
            "[#-----------------------------]    50/1000  loss 4.1234  12.3k tok/s  ETA 1:02");
  EXPECT_EQ(RenderProgress(kState, 60), "[-----------]    50/1000  loss 4.1234  12.3k tok/s  ETA 1:02");
}

TEST(Progress, NeverWiderThanTheTerminal) {
  for (int width = 1; width < 200; ++width) EXPECT_LE(RenderProgress(kState, width).size(), size_t(width)) << width;
  EXPECT_EQ(RenderProgress(kState, 20), "  50/1000  loss 4.12");
}

TEST(Progress, BarIsEmptyFullAndNeverOutside) {
  ProgressState state = kState;
  const auto bar = [&] { return RenderProgress(state, 200).substr(0, 42); };
  state.step = 0;
  EXPECT_EQ(bar(), "[" + std::string(40, '-') + "]");
  state.step = 1000;
  EXPECT_EQ(bar(), "[" + std::string(40, '#') + "]");
  state.step = 2000;
  EXPECT_EQ(bar(), "[" + std::string(40, '#') + "]");
  state.steps = 0;
  EXPECT_EQ(bar(), "[" + std::string(40, '-') + "]");
}

TEST(Progress, RatesAndDurations) {
  EXPECT_EQ(FormatRate(950), "950");
  EXPECT_EQ(FormatRate(999.9), "1k");
  EXPECT_EQ(FormatRate(12345), "12.3k");
  EXPECT_EQ(FormatRate(4.56e6), "4.56M");
  EXPECT_EQ(FormatDuration(7), "0:07");
  EXPECT_EQ(FormatDuration(3723), "1:02:03");
  EXPECT_EQ(FormatDuration(2 * 86400 + 3 * 3600 + 4 * 60), "2d 03:04");
  EXPECT_EQ(FormatDuration(-1), "?");
  EXPECT_EQ(FormatDuration(INFINITY), "?");
  EXPECT_EQ(FormatDuration(NAN), "?");
}

std::string Captured(std::FILE* file) {
  std::string text(static_cast<size_t>(std::ftell(file)), '\0');
  std::rewind(file);
  text.resize(std::fread(text.data(), 1, text.size(), file));
  std::fclose(file);
  return text;
}

TEST(Progress, PlainLinesWhereThereIsNoTerminal) {
  std::FILE* file = std::tmpfile();
  ASSERT_NE(file, nullptr);
  Progress progress(file);
  progress.Update(kState);
  progress.Print("saved step 50");
  progress.Finish();
  EXPECT_EQ(Captured(file), "step 50/1000  loss 4.1234  12.3k tok/s  ETA 1:02\nsaved step 50\n");
}

TEST(Progress, StickyLineIsClearedAndDrawnAgain) {
  std::FILE* file = std::tmpfile();
  ASSERT_NE(file, nullptr);
  Progress progress(file, /*sticky=*/true);
  progress.Update(kState);
  progress.Print("saved step 50");
  progress.Finish();
  progress.Print("done");
  const std::string line = "\r\x1b[K" + RenderProgress(kState, 79);
  EXPECT_EQ(Captured(file), line + "\r\x1b[Ksaved step 50\n" + line + "\ndone\n");
}

}  // namespace
}  // namespace strata
