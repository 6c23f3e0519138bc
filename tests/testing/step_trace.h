#pragma once
// What every kernel of a run made of what, as hashes: where two runs part that should have the same bits.

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/plan/plan.h"

namespace strata::testing {

// Of one rank, used by its thread. Nothing may be captured meanwhile: every step waits for the device.
class StepTrace {
 public:
  struct Entry {
    int step = 0;  // of the training
    std::string scope;
    std::string what;  // op, attributes and operands: with addresses modulo 512, and which of them is written over
    std::string name;  // the same without where they lie
    uint64_t in = 0, out = 0;  // hashes
  };

  // The plan, with kernels that run the steps' own and add an entry each. The trace must outlive it.
  Plan Watch(Plan plan);
  void set_step(int step) { step_ = step; }
  int step() const { return step_; }
  void Add(Entry e) { entries_.push_back(std::move(e)); }
  const std::vector<Entry>& entries() const { return entries_; }

 private:
  std::vector<Entry> entries_;
  int step_ = 0;
};

// The first entries of `b` that made other bytes than an alike one of `a` did from the same operands in the same training step; if
// there are none, the first whose operands no entry of that name had. Empty where every step of `b` repeats one of `a`, or has a
// name of its own: such as one that is fused in the other plan.
std::string FirstDifferences(const StepTrace& a, const StepTrace& b, size_t most = 3);

}  // namespace strata::testing
