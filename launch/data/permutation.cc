#include "launch/data/permutation.h"

#include <algorithm>
#include <bit>

#include "core/base/check.h"
#include "core/base/philox.h"

namespace strata {
namespace {

constexpr uint32_t kRounds = 8;  // tiny domains need more than the 4 of Luby and Rackoff to look random

uint64_t Feistel(uint64_t seed, uint64_t epoch, int half_bits, uint64_t value) {
  const uint64_t stream = HashName("data order");
  const uint32_t mask = static_cast<uint32_t>((uint64_t{1} << half_bits) - 1);
  uint32_t left = static_cast<uint32_t>(value >> half_bits), right = static_cast<uint32_t>(value) & mask;
  for (uint32_t round = 0; round < kRounds; ++round) {
    const PhiloxBlock block = Philox(seed, stream + epoch, uint64_t{round} << 32 | right);
    const uint32_t next = (left ^ block[0]) & mask;
    left = right;
    right = next;
  }
  return uint64_t{left} << half_bits | right;
}

}  // namespace

int64_t Permute(uint64_t seed, uint64_t epoch, int64_t n, int64_t index) {
  STRATA_CHECK(0 <= index && index < n);
  const int bits = std::bit_width(static_cast<uint64_t>(n - 1));
  const int half_bits = std::max(1, (bits + 1) / 2);
  auto value = static_cast<uint64_t>(index);
  do {
    value = Feistel(seed, epoch, half_bits, value);
  } while (value >= static_cast<uint64_t>(n));
  return static_cast<int64_t>(value);
}

}  // namespace strata
