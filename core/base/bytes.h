#pragma once
// Numbers of bytes as people write them.

#include <cstdint>
#include <string_view>

#include "absl/status/statusor.h"

namespace strata {

// "16GiB", "1.5 GB", "4096B": a number and a unit, B, KiB, MiB, GiB, TiB (powers of 1024) or kB, MB, GB, TB (of 1000); whole
// bytes, rounded down. Errors: InvalidArgument, also where it is negative or above 2^62.
absl::StatusOr<int64_t> ParseBytes(std::string_view text);

}  // namespace strata
