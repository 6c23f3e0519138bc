#pragma once
// `strata doctor`: whether this machine is ready to train, and what to do where it is not.

#include <span>
#include <string>
#include <vector>

#include "launch/doctor/machine.h"

namespace strata {

struct Finding {
  std::string about;   // "blas"
  std::string text;    // what is there
  std::string advice;  // what to do; empty: all is well
};

std::vector<Finding> Judge(const MachineFacts& facts);

// A line each: "ok    disk    ..." or "warn  disk    ...", the advice below it.
std::string Print(std::span<const Finding> findings);

}  // namespace strata
