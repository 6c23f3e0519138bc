#include "core/base/crc32c.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string_view>
#include <vector>

#include "core/base/philox.h"

namespace strata {
namespace {

std::vector<std::byte> Bytes(std::string_view s) {
  const auto* p = reinterpret_cast<const std::byte*>(s.data());
  return {p, p + s.size()};
}

std::vector<std::byte> RandomBytes(size_t n) {
  std::vector<std::byte> v(n);
  for (size_t i = 0; i < n; ++i) v[i] = static_cast<std::byte>(Philox(1, 2, i)[0]);
  return v;
}

// Vectors of RFC 3720 B.4, and the usual check value.
TEST(Crc32c, KnownVectors) {
  std::vector<std::byte> up(32), down(32);
  for (int i = 0; i < 32; ++i) up[i] = static_cast<std::byte>(i), down[i] = static_cast<std::byte>(31 - i);
  const std::vector<std::pair<std::vector<std::byte>, uint32_t>> vectors = {
      {{}, 0},
      {Bytes("123456789"), 0xE3069283},
      {std::vector<std::byte>(32, std::byte{0}), 0x8A9136AA},
      {std::vector<std::byte>(32, std::byte{0xff}), 0x62A8AB43},
      {up, 0x46DD794E},
      {down, 0x113FDB5C},
  };
  for (const auto& [bytes, crc] : vectors) {
    EXPECT_EQ(Crc32c(bytes), crc);
    EXPECT_EQ(Crc32cPortable(bytes), crc);
  }
}

TEST(Crc32c, PortableEqualsHardwareAtEveryLengthAndAlignment) {
  const std::vector<std::byte> bytes = RandomBytes(200);
  for (size_t begin = 0; begin < 9; ++begin) {
    for (size_t n = 0; n + begin <= bytes.size(); ++n) {
      const std::span<const std::byte> part(bytes.data() + begin, n);
      ASSERT_EQ(Crc32c(part, 77), Crc32cPortable(part, 77)) << begin << " " << n;
    }
  }
}

TEST(Crc32c, ExtendAndCombineEqualTheWhole) {
  const std::vector<std::byte> bytes = RandomBytes(5000);
  const std::span<const std::byte> all(bytes);
  const uint32_t whole = Crc32c(all);
  for (const size_t cut : {0, 1, 7, 8, 255, 256, 4096, 4999, 5000}) {
    const auto a = all.first(cut), b = all.subspan(cut);
    EXPECT_EQ(Crc32c(b, Crc32c(a)), whole) << cut;
    EXPECT_EQ(Crc32cCombine(Crc32c(a), Crc32c(b), static_cast<int64_t>(b.size())), whole) << cut;
  }
}

}  // namespace
}  // namespace strata
