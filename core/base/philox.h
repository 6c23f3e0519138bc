#pragma once
// Counter-based random numbers: a pure function of key and counter, so a result never depends on layout, threads or order.
// Source: Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3" (SC11), Philox4x32-10.

#include <array>
#include <cmath>
#include <cstdint>
#include <string_view>

namespace strata {

using PhiloxBlock = std::array<uint32_t, 4>;

constexpr PhiloxBlock Philox4x32(PhiloxBlock counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * counter[0], b = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(a)};
    key = {key[0] + 0x9E3779B9, key[1] + 0xBB67AE85};
  }
  return counter;
}

// Block `index` of the stream `stream` under `seed`.
constexpr PhiloxBlock Philox(uint64_t seed, uint64_t stream, uint64_t index) {
  return Philox4x32({static_cast<uint32_t>(index), static_cast<uint32_t>(index >> 32), static_cast<uint32_t>(stream),
                     static_cast<uint32_t>(stream >> 32)},
                    {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
}

// Uniform in [0, 1), 32 bits.
constexpr double PhiloxUniform(uint32_t word) { return word * 0x1p-32; }

// Standard normal (Box-Muller on words 0 and 1).
inline double PhiloxNormal(const PhiloxBlock& b) {
  const double u = (b[0] + 0.5) * 0x1p-32, v = b[1] * 0x1p-32;
  return std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586476925 * v);
}

// FNV-1a: names to stream numbers; stable across machines and versions.
constexpr uint64_t HashName(std::string_view s, uint64_t h = 0xcbf29ce484222325ull) {
  for (char c : s) h = (h ^ static_cast<uint8_t>(c)) * 0x100000001b3ull;
  return h;
}

}  // namespace strata
