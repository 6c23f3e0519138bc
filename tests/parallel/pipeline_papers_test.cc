// What papers found by measuring, found again by simulation (bench/schedule_cases.h): directions, and ratios in their range.

#include <gtest/gtest.h>

#include "bench/schedule_cases.h"

namespace strata {
namespace {

// Interleaving gains less as the batch grows: the bubble that it divides by v does, and it sends v times as much.
TEST(PipelinePapers, InterleavedOn175B) {
  double last = 1;
  for (int m : {12, 24, 48, 96, 192}) {
    const double one = SimulatedStep(Gpt175B(), {.name = "1f1b", .ranks = 12, .micro_batches = m});
    const double wide = SimulatedStep(Gpt175B(), {.name = "interleaved", .ranks = 12, .chunks = 4, .micro_batches = m});
    const double gain = one / wide - 1;
    EXPECT_GT(gain, 0);
    EXPECT_LT(gain, last);
    last = gain;
  }
  EXPECT_LT(last, 0.05);
}

// With ZeRO-3, depth-first gathers a stage again for every group of p micro-batches, breadth-first twice a step.
TEST(PipelinePapers, BreadthFirstOn52B) {
  for (int resident : {1, 2}) {
    for (int m : {8, 16, 32}) {
      const TransformerCase c = Gpt52B(2, resident);
      const double depth = SimulatedStep(c, {.name = "interleaved", .ranks = 8, .chunks = 8, .micro_batches = m});
      const double breadth = SimulatedStep(c, {.name = "breadth-first", .ranks = 8, .chunks = 8, .micro_batches = m});
      if (m == 8) {
        EXPECT_NEAR(depth / breadth, 1, 0.02);  // one group: the same gathers
      } else {
        EXPECT_GT(depth / breadth, resident == 1 ? 1.43 : 1.1);
      }
    }
  }
}

// BitPipe reports 1.05 to 1.28 times the speed of the best others at p = 8.
TEST(PipelinePapers, BitPipeOnItsModels) {
  const auto speed_up = [](const TransformerCase& c, int m, const char* other) {
    return SimulatedStep(c, {.name = other, .ranks = 8, .micro_batches = m}) /
           SimulatedStep(c, {.name = "bitpipe", .ranks = 8, .micro_batches = m});
  };
  EXPECT_NEAR(speed_up(Bert64(), 8, "interleaved"), 1.14, 0.03);
  EXPECT_NEAR(speed_up(Bert64(), 8, "chimera"), 1.20, 0.03);
  EXPECT_NEAR(speed_up(Gpt96(), 16, "interleaved"), 1.02, 0.03);
  EXPECT_NEAR(speed_up(Gpt96(), 16, "chimera"), 1.16, 0.03);
}

}  // namespace
}  // namespace strata
