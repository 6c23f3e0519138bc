#include "launch/metrics/progress.h"

#include <cmath>
#include <cstdio>

#include <gtest/gtest.h>

namespace strata {
namespace {

const ProgressState kState{
    .step = 50, .steps = 1000, .loss = 4.1234, .tokens_per_s = 12345, .data_wait = 3.4, .eta_s = 62};

TEST(Progress, GoldenLines) {
  EXPECT_EQ(RenderProgress(kState, 0), "step 50/1000  loss 4.1234  12.3k tok/s  data wait 3%  ETA 1:02");
  EXPECT_EQ(RenderProgress(kState, 79),
            "[----------------]    50/1000  loss 4.1234  12.3k tok/s  data wait 3%  ETA 1:02");
  EXPECT_EQ(RenderProgress(kState, 74), "[-----------]    50/1000  loss 4.1234  12.3k tok/s  data wait 3%  ETA 1:02");
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
  EXPECT_EQ(Captured(file), "step 50/1000  loss 4.1234  12.3k tok/s  data wait 3%  ETA 1:02\nsaved step 50\n");
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
