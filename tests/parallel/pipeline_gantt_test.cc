#include "parallel/pipeline/gantt.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace strata {
namespace {

using ::testing::HasSubstr;

size_t Count(const std::string& text, std::string_view part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

GanttTrack Track(const std::string& name, double begin) {
  const Action f{.kind = Action::kF, .micro_batch = 3}, send{.kind = Action::kSend, .micro_batch = 3},
      b{.kind = Action::kB, .replica = 1, .micro_batch = 4};
  return {name, {{{{f, begin, begin + 1}, {send, begin + 1, begin + 1.5}, {b, begin + 2, begin + 4}}, {}}}};
}

TEST(PipelineGantt, PlannedAndMeasuredInOneDrawing) {
  const std::string html =
      GanttHtml("a & b", std::vector<GanttSection>{{"1f1b", {Track("planned", 0), Track("measured", 100)}}});
  EXPECT_THAT(html, HasSubstr("<h2>a &amp; b</h2>"));
  EXPECT_THAT(html, HasSubstr("planned: 4 s, bubble 62.5%; measured: 4 s, bubble 62.5%"));  // 3 of 8 rank-seconds
  EXPECT_EQ(Count(html, "<rect "), 6u);
  EXPECT_EQ(Count(html, "<title>F0.3, 0 s to 1 s</title>"), 2u);  // each track begins at 0
  EXPECT_EQ(Count(html, ">rank 1 measured</text>"), 1u);
  EXPECT_EQ(Count(html, "class=\"b up\" x=\"930.00\""), 2u);
  EXPECT_EQ(Count(html, "<svg "), Count(html, "</svg>"));
  EXPECT_EQ(html.find("http://"), html.find("http://www.w3.org"));
}

TEST(PipelineGantt, ChromeTrace) {
  const std::string json = ChromeTrace(std::vector<GanttTrack>{Track("planned \"x\"", 2)});
  EXPECT_THAT(json, HasSubstr("\"name\":\"planned \\\"x\\\"\""));
  EXPECT_THAT(json, HasSubstr("{\"ph\":\"X\",\"pid\":0,\"tid\":0,\"name\":\"F0.3\",\"ts\":0.000,\"dur\":1000000.000}"));
  EXPECT_THAT(
      json,
      HasSubstr("{\"ph\":\"X\",\"pid\":0,\"tid\":1,\"name\":\"send 0.3\",\"ts\":1000000.000,\"dur\":500000.000}"));
}

}  // namespace
}  // namespace strata
