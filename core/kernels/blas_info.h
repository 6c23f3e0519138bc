#pragma once
// What OpenBLAS is and which kernels it picked for this CPU. Thread-safe.

#include <string>

namespace strata {

struct BlasInfo {
  std::string version;  // "OpenBLAS 0.3.21"
  std::string core;     // the kernel set: "SkylakeX", "Haswell"
  int threads = 0;      // that it would use for one call by itself
};
BlasInfo DescribeBlas();

}  // namespace strata
