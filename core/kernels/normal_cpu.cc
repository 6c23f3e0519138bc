#include "core/kernels/normal_cpu.h"

#include <algorithm>
#include <cmath>

#include "core/base/philox.h"

// Loops that vectorise: without branches, and without a library's functions.
namespace strata {
namespace {

// A word as a number, by signed conversion: that of unsigned ones is not an instruction of every CPU.
double Number(uint32_t word) { return static_cast<double>(static_cast<int32_t>(word ^ 0x80000000u)) + 0x1p31; }

// 1 / n!, with the sign that it has in the series of sine and cosine.
constexpr double Term(int n) {
  double f = n / 2 % 2 == 0 ? 1 : -1;
  for (int i = 2; i <= n; ++i) f /= i;
  return f;
}

// sqrt(-2 log u), u = (word + 1/2) / 2^32 = 2^k z, z between sqrt(1/2) and sqrt(2): log z = 2 artanh s = 2 (s + s^3 / 3 + s^5 / 5 + ...),
// s = (z - 1) / (z + 1), |s| < 0.172.
double Radius(uint32_t word) {
  constexpr uint64_t kOne = uint64_t{1023} << 52, kRoot = 0x3FE6A09E667F3BCD;  // 1 and sqrt(1/2)
  const auto bits = __builtin_bit_cast(uint64_t, (Number(word) + 0.5) * 0x1p-32);
  const uint64_t biased = (bits - kRoot + kOne) >> 52;  // k + 1023
  const double k = __builtin_bit_cast(double, biased | uint64_t{0x433} << 52) - (0x1p52 + 1023);
  const double z = __builtin_bit_cast(double, bits - (biased << 52) + kOne);
  const double s = (z - 1) / (z + 1), s2 = s * s;
  double sum = 1.0 / 23;
#pragma GCC unroll 11
  for (int n = 21; n >= 1; n -= 2) sum = sum * s2 + 1.0 / n;
  return std::sqrt(-2.0 * (k * 0.69314718055994530942 + 2.0 * s * sum));
}

// cos(2 pi word / 2^32): whole quarters of a turn, and y within 1/8 of one.
double Cosine(uint32_t word) {
  const uint32_t from_eighth = word + (1u << 29), quarter = from_eighth >> 30;
  const auto rest = static_cast<int32_t>(from_eighth & ((1u << 30) - 1)) - (1 << 29);
  const double y = rest * (6.283185307179586476925 * 0x1p-32), y2 = y * y;
  double cosine = Term(16), sine = Term(17);
#pragma GCC unroll 8
  for (int n = 14; n >= 0; n -= 2) {
    cosine = cosine * y2 + Term(n);
    sine = sine * y2 + Term(n + 1);
  }
  const double odd = static_cast<int32_t>(quarter & 1), minus = static_cast<int32_t>((quarter + 1) >> 1 & 1);
  return (1 - 2 * minus) * ((1 - odd) * cosine + odd * (sine * y));
}

}  // namespace

void FillNormals(uint64_t seed, uint64_t stream, uint64_t first, std::span<double> x) {
  constexpr int kChunk = 256;
  uint32_t radii[kChunk], angles[kChunk];
  double normals[kChunk];
  for (size_t begin = 0; begin < x.size(); begin += kChunk) {
    for (int i = 0; i < kChunk; ++i) {
      const PhiloxBlock block = Philox(seed, stream, first + begin + static_cast<uint64_t>(i));
      radii[i] = block[0], angles[i] = block[1];
    }
    for (int i = 0; i < kChunk; ++i) normals[i] = Radius(radii[i]);
    for (int i = 0; i < kChunk; ++i) normals[i] *= Cosine(angles[i]);
    std::copy_n(normals, std::min<size_t>(kChunk, x.size() - begin), x.begin() + static_cast<std::ptrdiff_t>(begin));
  }
}

}  // namespace strata
