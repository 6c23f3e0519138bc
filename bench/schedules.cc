// Prints the published comparisons of pipeline schedules, simulated: see schedule_cases.h.

#include "bench/schedule_cases.h"

#include <cstdio>

namespace strata {
namespace {

void Interleaved175B() {
  std::puts("simulated: GPT-3 175B, p = 12, interleaved (v = 4) against 1F1B, by batch size");
  for (int m : {12, 24, 36, 48, 60}) {
    const double one = SimulatedStep(Gpt175B(), {.name = "1f1b", .ranks = 12, .micro_batches = m});
    const double wide = SimulatedStep(Gpt175B(), {.name = "interleaved", .ranks = 12, .chunks = 4, .micro_batches = m});
    std::printf("  batch %2d   %.3f s against %.3f s   %+.1f%%\n", m, wide, one, 100 * (one / wide - 1));
  }
}

void BreadthFirst52B() {
  std::puts("simulated: 52B, 64 ranks, p = 8, v = 8, ZeRO-3, breadth-first against depth-first");
  for (double tp : {2.0, 4.0}) {
    for (int resident : {1, 2}) {
      for (int m : {8, 16, 32, 64}) {
        const TransformerCase c = Gpt52B(tp, resident);
        const double depth = SimulatedStep(c, {.name = "interleaved", .ranks = 8, .chunks = 8, .micro_batches = m});
        const double breadth = SimulatedStep(c, {.name = "breadth-first", .ranks = 8, .chunks = 8, .micro_batches = m});
        std::printf("  tp %.0f x dp %.0f, %d resident, %2d micro-batches   %.3f s against %.3f s   %+.1f%%\n", tp,
                    8 / tp, resident, m, breadth, depth, 100 * (depth / breadth - 1));
      }
    }
  }
}

void BitPipe() {
  std::puts("simulated: BitPipe, p = 8, its speed as a multiple of the others'");
  struct Model {
    const char* name;
    TransformerCase c;
    int m;
  };
  for (const Model& model : {Model{"BERT-64", Bert64(), 8}, Model{"GPT-96", Gpt96(), 16}}) {
    const double bit = SimulatedStep(model.c, {.name = "bitpipe", .ranks = 8, .micro_batches = model.m});
    for (const char* other : {"1f1b", "interleaved", "chimera"}) {
      const double step = SimulatedStep(model.c, {.name = other, .ranks = 8, .micro_batches = model.m});
      std::printf("  %-8s %.4f s against %-12s %.4f s   %.2fx\n", model.name, bit, other, step, step / bit);
    }
  }
}

}  // namespace
}  // namespace strata

int main() {
  strata::Interleaved175B();
  strata::BreadthFirst52B();
  strata::BitPipe();
  return 0;
}
