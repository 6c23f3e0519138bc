#pragma once
// What every kernel of a run made of what, as hashes: finds the first step at which two runs that should have the same bits part.

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/plan/plan.h"

namespace strata::testing {

// Of one rank, used by its thread. Nothing may be captured meanwhile: every step waits for the device.
class StepTrace {
 public:
  struct Entry {
    int step = 0;  // of the training
    std::string scope,
        what;  // what: op, attributes and operands; with their addresses modulo 512, and which input is written over
    std::string name;  // op, attributes, dtypes and shapes: what an alike step has too
    uint64_t in = 0, out = 0;
  };

  // The plan, with kernels that run the steps' own and add an entry each. The trace must outlive it.
  Plan Watch(Plan plan);
  void set_step(int step) { step_ = step; }
  const std::vector<Entry>& entries() const { return entries_; }

 private:
  friend class WatchedOp;
  std::vector<Entry> entries_;
  int step_ = 0;
};

// The first entries of `b` that made other bytes than an alike one of `a` did from the same operands in the same training step; if
// there are none, the first whose operands no entry of `a` had. Empty where every step of `b` is a repetition.
std::string FirstDifferences(const StepTrace& a, const StepTrace& b, size_t most = 3);

}  // namespace strata::testing
