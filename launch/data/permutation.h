#pragma once
// A pseudo-random permutation of [0, n), evaluated at one point in O(1) memory and time: a balanced Feistel network
// whose round function is Philox, on the smallest even number of bits that holds n, walked along its cycle until it
// lands inside (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002). Under 4 steps on average.

#include <cstdint>

namespace strata {

// A bijection in `index` for each (seed, epoch, n). 0 <= index < n.
int64_t Permute(uint64_t seed, uint64_t epoch, int64_t n, int64_t index);

}  // namespace strata
