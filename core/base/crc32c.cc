#include "core/base/crc32c.h"

#include <array>
#include <cstring>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace strata {
namespace {

constexpr uint32_t kPolynomial = 0x82F63B78;

using Tables = std::array<std::array<uint32_t, 256>, 8>;

// kTables[k][b]: the CRC register after byte b and k zero bytes ("slicing by 8").
constexpr Tables MakeTables() {
  Tables t{};
  for (uint32_t b = 0; b < 256; ++b) {
    uint32_t c = b;
    for (int i = 0; i < 8; ++i) c = (c >> 1) ^ (c & 1 ? kPolynomial : 0);
    t[0][b] = c;
  }
  for (size_t k = 1; k < 8; ++k) {
    for (size_t b = 0; b < 256; ++b) t[k][b] = (t[k - 1][b] >> 8) ^ t[0][t[k - 1][b] & 0xff];
  }
  return t;
}
constexpr Tables kTables = MakeTables();

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) uint32_t Crc32cSse42(std::span<const std::byte> bytes, uint32_t crc) {
  uint64_t c = ~crc;
  const std::byte* p = bytes.data();
  size_t n = bytes.size();
  for (; n >= 8; p += 8, n -= 8) {
    uint64_t word;
    std::memcpy(&word, p, 8);
    c = _mm_crc32_u64(c, word);
  }
  uint32_t tail = static_cast<uint32_t>(c);
  for (; n > 0; ++p, --n) tail = _mm_crc32_u8(tail, static_cast<uint8_t>(*p));
  return ~tail;
}
#endif

// Product of two polynomials modulo the CRC's; bit 31 is x^0.
uint32_t Multiply(uint32_t a, uint32_t b) {
  uint32_t product = 0;
  for (uint32_t bit = 0x80000000; bit != 0; bit >>= 1) {
    if (a & bit) product ^= b;
    b = (b >> 1) ^ (b & 1 ? kPolynomial : 0);
  }
  return product;
}

}  // namespace

uint32_t Crc32c(std::span<const std::byte> bytes, uint32_t crc) {
#if defined(__x86_64__)
  static const bool has_sse42 = __builtin_cpu_supports("sse4.2") != 0;
  if (has_sse42) return Crc32cSse42(bytes, crc);
#endif
  return Crc32cPortable(bytes, crc);
}

uint32_t Crc32cPortable(std::span<const std::byte> bytes, uint32_t crc) {
  uint32_t c = ~crc;
  const std::byte* p = bytes.data();
  size_t n = bytes.size();
  const auto byte = [&p](int i) { return static_cast<uint32_t>(p[i]); };
  for (; n >= 8; p += 8, n -= 8) {
    c ^= byte(0) | byte(1) << 8 | byte(2) << 16 | byte(3) << 24;
    c = kTables[7][c & 0xff] ^ kTables[6][c >> 8 & 0xff] ^ kTables[5][c >> 16 & 0xff] ^ kTables[4][c >> 24] ^
        kTables[3][byte(4)] ^ kTables[2][byte(5)] ^ kTables[1][byte(6)] ^ kTables[0][byte(7)];
  }
  for (; n > 0; ++p, --n) c = (c >> 8) ^ kTables[0][(c ^ byte(0)) & 0xff];
  return ~c;
}

uint32_t Crc32cCombine(uint32_t crc_a, uint32_t crc_b, int64_t b_bytes) {
  uint32_t shift = 0x80000000;   // x^0; becomes x^(8 * b_bytes)
  uint32_t square = 0x00800000;  // x^8
  for (int64_t n = b_bytes; n > 0; n >>= 1) {
    if (n & 1) shift = Multiply(shift, square);
    square = Multiply(square, square);
  }
  return Multiply(shift, crc_a) ^ crc_b;
}

}  // namespace strata
