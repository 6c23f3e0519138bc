// Generators against what their papers say: bubbles, peaks, worked examples; and what they refuse.

#include "parallel/pipeline/schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "absl/strings/str_format.h"
#include "parallel/pipeline/lower.h"
#include "parallel/pipeline/simulate.h"
#include "parallel/pipeline/text.h"
#include "parallel/pipeline/validate.h"
#include "tests/testing/pipeline.h"

namespace strata {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::UnitStages;

Schedule Make(const ScheduleSpec& spec) {
  absl::StatusOr<Schedule> s = MakeSchedule(spec);
  EXPECT_TRUE(s.ok()) << s.status();
  if (!s.ok()) return {};
  EXPECT_EQ(ValidateSchedule(*s), absl::OkStatus()) << DumpSchedule(*s);
  return *std::move(s);
}

Timeline Timed(const Schedule& s, const StageDurations& d) {
  absl::StatusOr<Timeline> t = Simulate(s, d);
  EXPECT_TRUE(t.ok()) << t.status();
  return t.ok() ? *std::move(t) : Timeline{};
}

double Bubble(const ScheduleSpec& spec) {
  const Schedule s = Make(spec);
  return BubbleFraction(Timed(s, UnitStages(s)));
}

// Bubble fractions at p = 8 with t_F = t_I = t_W = 1 and no communication, by m.
TEST(PipelineSchedule, BubblesOfThePapers) {
  struct Column {
    const char* name;
    int chunks;
    double at_8, at_16, at_64;  // 0: the schedule cannot have it
  };
  constexpr Column kTable[] = {
      {"gpipe", 1, .467, .304, .099},       {"1f1b", 1, .467, .304, .099},
      {"interleaved", 2, .304, .179, .052}, {"breadth-first", 2, .304, .179, .052},
      {"interleaved", 4, .179, .099, .027}, {"breadth-first", 4, .179, .099, .027},
      {"chimera", 1, .333, .273, .220},     {"bitpipe", 2, .200, .158, .123},
      {"zb-h1", 1, .226, .127, .035},       {"zbv", 2, .226, .068, .018},
      {"dualpipe", 1, 0, .111, .030},
  };
  for (const Column& c : kTable) {
    for (const auto& [m, want] : {std::pair(8, c.at_8), {16, c.at_16}, {64, c.at_64}}) {
      const ScheduleSpec spec{.name = c.name, .ranks = 8, .chunks = c.chunks, .micro_batches = m};
      if (want == 0) {
        EXPECT_FALSE(MakeSchedule(spec).ok());
      } else {
        EXPECT_NEAR(Bubble(spec), want, 0.0005) << c.name << " v=" << c.chunks << " m=" << m;
      }
    }
  }
}

// (p - 1)(t_F + t_B) / v for the schedules that flush, (p - 1)(t_F + t_I - t_W) for ZB-H1; (p / 2 - 1)(2 t_F + 2 t_I + t_W -
// 3 t_W) for DualPipe, whose pairs here take the sum of their members.
TEST(PipelineSchedule, ClosedFormsOfTheBubble) {
  const StageDurations::Stage stage{.forward = 1, .input_grad = 1.5, .weight_grad = 0.75};
  for (int p : {2, 4, 6}) {
    for (int m : {2 * p, 4 * p}) {
      const auto idle = [&](const char* name, int v) {
        const Schedule s = Make({.name = name, .ranks = p, .chunks = v, .micro_batches = m});
        const StageDurations::Stage chunk{stage.forward / v, stage.input_grad / v, stage.weight_grad / v};
        return Timed(s, StageDurations::Uniform(s.stages(), chunk)).makespan() - m * 3.25;
      };
      EXPECT_NEAR(idle("gpipe", 1), (p - 1) * 3.25, 1e-9);
      EXPECT_NEAR(idle("1f1b", 1), (p - 1) * 3.25, 1e-9);
      for (int v : {2, 3}) {
        EXPECT_NEAR(idle("interleaved", v), (p - 1) * 3.25 / v, 1e-9);
        EXPECT_NEAR(idle("breadth-first", v), (p - 1) * 3.25 / v, 1e-9);
      }
      EXPECT_NEAR(idle("zb-h1", 1), (p - 1) * (1 + 1.5 - 0.75), 1e-9);
    }
    const Schedule bit = Make({.name = "bitpipe", .ranks = p, .micro_batches = p});
    EXPECT_NEAR(BubbleFraction(Timed(bit, UnitStages(bit))), (p - 2.0) / (3 * p + p - 2), 1e-9);
  }
}

TEST(PipelineSchedule, PeaksOfActivations) {
  for (int p : {2, 4, 8}) {
    for (int m : {p, 2 * p, 5 * p}) {
      const std::vector<int> gpipe = PeakChunks(Make({.name = "gpipe", .ranks = p, .micro_batches = m}));
      const std::vector<int> one = PeakChunks(Make({.name = "1f1b", .ranks = p, .micro_batches = m}));
      const std::vector<int> wide =
          PeakChunks(Make({.name = "interleaved", .ranks = p, .chunks = 3, .micro_batches = m}));
      const std::vector<int> h1 = PeakChunks(Make({.name = "zb-h1", .ranks = p, .micro_batches = m}));
      const std::vector<int> zbv = PeakChunks(Make({.name = "zbv", .ranks = p, .micro_batches = m}));
      for (int r = 0; r < p; ++r) {
        EXPECT_EQ(gpipe[r], m);
        EXPECT_EQ(one[r], std::min(m, p - r));
        EXPECT_EQ(wide[r], std::min(3 * m, 2 * (p - 1 - r) + 2 * p + 1));
        EXPECT_EQ(h1[r], std::min(m, p));
        EXPECT_LE(zbv[r], 2 * p);
      }
    }
  }
}

// The worked example of BitPipe, p = 4 and m = 4: every action at its slot (a chunk: F 1, B 2). The paper draws D2a one slot
// later, where it is needed.
TEST(PipelineSchedule, BitPipeWorkedExample) {
  const Schedule s = Make({.name = "bitpipe", .ranks = 4, .micro_batches = 4});
  const Timeline t = Timed(s, StageDurations::Uniform(8, {.forward = 1, .input_grad = 1, .weight_grad = 1}));
  EXPECT_EQ(t.makespan(), 28);
  std::string first, second;
  for (int r : {0, 1}) {
    for (const TimedAction& a : t.ranks[r]) {
      const bool up = a.action.replica == 1, b_chunk = a.action.stage >= 4;
      absl::StrAppendFormat(r == 0 ? &first : &second, "%s%s%d%c%.0f ", a.action.kind == Action::kF ? "" : "B ",
                            up ? "U" : "D", a.action.micro_batch / 2 + 1, b_chunk ? 'b' : 'a', a.begin);
    }
  }
  EXPECT_EQ(first,
            "D1a0 D2a1 U1a3 U1b4 U2a5 U2b6 D1b7 B D1b8 D2b10 B D2b11 B U1b14 B U1a16 B U2b18 B U2a20 B D1a22 B D2a26 ");
  EXPECT_EQ(second,
            "D1a1 U1a2 D2a3 U2a4 U1b5 D1b6 U2b7 D2b8 B D1b10 B U1b12 B D2b14 B U2b16 B U1a18 B D1a20 B U2a22 B D2a24 ");
}

// Bubble rates of the Zero Bubble paper (Qi et al. 2023, table 4): durations in ms as profiled there, rates in F, B, W, and
// the transfer; 1F1B and ZB-H1, twelve cases each. Rate: 1 - m (t_F + t_B + t_W) / the longest span of a rank.
TEST(PipelineSchedule, ZeroBubblePaperRates) {
  struct Case {
    int p, m;
    double f, i, w, transfer, one_f_one_b, zb_h1;
  };
  constexpr Case kCases[] = {
      {8, 24, 18.522, 18.086, 9.337, .601, .2431, .1585},   {8, 32, 18.513, 18.086, 9.331, .626, .1985, .1242},
      {8, 64, 18.546, 18.097, 9.321, .762, .1240, .0674},   {8, 24, 29.718, 29.444, 19.927, .527, .2347, .1323},
      {8, 32, 29.802, 29.428, 19.53, .577, .1898, .1045},   {8, 64, 29.935, 29.621, 19.388, .535, .1091, .0554},
      {16, 48, 11.347, 11.248, 8.132, .377, .2552, .1397},  {16, 64, 11.307, 11.254, 8.101, .379, .2082, .1088},
      {16, 128, 11.325, 11.308, 8.109, .378, .1251, .0576}, {32, 96, 10.419, 10.207, 7.715, .408, .2646, .1421},
      {32, 128, 10.408, 10.204, 7.703, .408, .2168, .1106}, {32, 256, 10.402, 10.248, 7.698, .46, .1352, .0594},
  };
  for (const Case& c : kCases) {
    const auto rate = [&](const char* name) {
      const Schedule s = Make({.name = name, .ranks = c.p, .micro_batches = c.m});
      StageDurations d = StageDurations::Uniform(c.p, {.forward = c.f, .input_grad = c.i, .weight_grad = c.w});
      d.latency = c.transfer;
      double span = 0;
      for (const std::vector<TimedAction>& rank : Timed(s, d).ranks) {
        span = std::max(span, rank.back().end - rank.front().begin);
      }
      return 1 - c.m * (c.f + c.i + c.w) / span;
    };
    const auto four_digits = [](double x) { return std::round(x * 1e4) / 1e4; };
    EXPECT_EQ(four_digits(rate("1f1b")), c.one_f_one_b) << c.p << " " << c.m;
    EXPECT_EQ(four_digits(rate("zb-h1")), c.zb_h1) << c.p << " " << c.m;
  }
}

// ZeRO-3 with one stage whole at a time, rank 0 of 8, four chunks, 32 micro-batches.
TEST(PipelineSchedule, UnshardsOfDepthAndBreadthFirst) {
  const auto unshards = [](const char* name) {
    const Schedule s = Make({.name = name, .ranks = 8, .chunks = 4, .micro_batches = 32});
    const absl::StatusOr<LoweredSchedule> l = LowerSchedule(s, UnitStages(s), {.zero = 3, .resident_stages = 1});
    EXPECT_TRUE(l.ok()) << l.status();
    if (!l.ok()) return int64_t{0};
    return std::count_if(l->actions[0].begin(), l->actions[0].end(),
                         [](const Action& a) { return a.kind == Action::kUnshard; });
  };
  EXPECT_EQ(unshards("interleaved"), 123);
  EXPECT_EQ(unshards("breadth-first"), 7);
}

// On the placement of BitPipe at p = 8 and m = 64, a list scheduler idles for less than BitPipe's own order.
TEST(PipelineSchedule, GreedyUnderACap) {
  const Schedule bit = Make({.name = "bitpipe", .ranks = 8, .micro_batches = 64});
  const Schedule greedy = Make({.name = "greedy", .ranks = 8, .micro_batches = 64, .replicas = 2, .memory_cap = 12});
  EXPECT_EQ(bit.rank_of, greedy.rank_of);
  EXPECT_NEAR(Timed(bit, UnitStages(bit)).makespan() - 3 * 64, 27, 1e-9);
  EXPECT_NEAR(Timed(greedy, UnitStages(greedy)).makespan() - 3 * 64, 9.5, 1e-9);
  const std::vector<int> peaks = PeakChunks(greedy);
  EXPECT_EQ(*std::max_element(peaks.begin(), peaks.end()), 21);
  for (double cap : {1.0, 2.0, 4.5, 8.0, 20.0}) {
    for (int peak :
         PeakChunks(Make({.name = "greedy", .ranks = 4, .chunks = 3, .micro_batches = 20, .memory_cap = cap}))) {
      EXPECT_LE(peak, 3 * cap);
    }
  }
}

TEST(PipelineSchedule, IllegalOnesAreRefusedWithTheNearest) {
  const auto refused = [](const ScheduleSpec& spec) { return std::string(MakeSchedule(spec).status().message()); };
  EXPECT_THAT(refused({.name = "dualpipe", .ranks = 8, .micro_batches = 12}),
              HasSubstr("nearest legal: 16 micro-batches, or 6 ranks"));
  EXPECT_THAT(refused({.name = "bitpipe", .ranks = 4, .micro_batches = 6}),
              HasSubstr("nearest legal: 4 micro-batches, or 2 ranks"));
  EXPECT_THAT(refused({.name = "chimera", .ranks = 3, .micro_batches = 6}), HasSubstr("nearest legal: 2 ranks"));
  EXPECT_THAT(refused({.name = "interleaved", .ranks = 4, .micro_batches = 10}),
              HasSubstr("nearest legal: 8 micro-batches, or 5 ranks"));
  EXPECT_THAT(refused({.name = "interleaved", .ranks = 4, .micro_batches = 8, .group = 3}),
              HasSubstr("or 4 micro-batches a group"));
  EXPECT_THAT(refused({.name = "1f1b", .ranks = 4, .chunks = 2, .micro_batches = 8}), HasSubstr("nearest legal: 1"));
  EXPECT_THAT(refused({.name = "zbv", .ranks = 4, .chunks = 3, .micro_batches = 8}), HasSubstr("nearest legal: 2"));
  EXPECT_THAT(refused({.name = "1f1", .ranks = 4, .micro_batches = 8}),
              HasSubstr("there are gpipe, 1f1b, interleaved"));
  EXPECT_THAT(refused({.name = "1f1b", .ranks = 0, .micro_batches = 8}), HasSubstr("must be positive"));
  EXPECT_THAT(refused({.name = "1f1b", .ranks = 1 << 30, .micro_batches = 1 << 30}), HasSubstr("too large"));
  EXPECT_THAT(refused({.name = "greedy", .ranks = 4, .micro_batches = 8, .memory_cap = 0.5}),
              HasSubstr("memory_cap >= replicas"));
}

}  // namespace
}  // namespace strata
