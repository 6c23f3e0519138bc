// The entry of a libFuzzer program; STRATA_FUZZ_TARGET names the function.

#include <cstddef>
#include <cstdint>

#include "tests/fuzz/targets.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  strata::fuzz::STRATA_FUZZ_TARGET({reinterpret_cast<const char*>(data), size});
  return 0;
}
