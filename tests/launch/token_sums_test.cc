#include "launch/data/token_sums.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/base/crc32c.h"

namespace strata {
namespace {

using ::testing::HasSubstr;

std::span<const std::byte> Bytes(const std::string& text) { return std::as_bytes(std::span(text)); }

FileSums Summed(const std::string& text, size_t piece) {
  FileSums sums;
  for (size_t at = 0; at < text.size(); at += piece)
    sums.Add(Bytes(text).subspan(at, std::min(piece, text.size() - at)));
  return sums;
}

std::string Text(size_t bytes) {
  std::string text(bytes, '\0');
  for (size_t i = 0; i < bytes; ++i) text[i] = static_cast<char>(i * 131 >> 3);
  return text;
}

TEST(TokenSums, BlocksDoNotDependOnThePiecesThatWereAdded) {
  const std::string text = Text(2 * kSumBlockBytes + 77);
  const FileSums whole = Summed(text, text.size());
  EXPECT_EQ(whole.bytes, std::ssize(text));
  ASSERT_EQ(whole.blocks.size(), 3u);
  EXPECT_EQ(whole.blocks[0], Crc32c(Bytes(text).first(kSumBlockBytes)));
  EXPECT_EQ(whole.blocks[2], Crc32c(Bytes(text).last(77)));
  for (const size_t piece : {1000u, 65536u, 1048575u}) EXPECT_EQ(Summed(text, piece), whole) << piece;
  EXPECT_TRUE(Summed("", 1).blocks.empty());
}

TEST(TokenSums, TextHoldsAllAndReadsBack) {
  const TokenSums sums{2048, 0xabc, {kSumBlockBytes + 1, {1, 0xffffffff}}, {34, {7}}};
  const std::string text = ToText(sums);
  EXPECT_TRUE(
      text.starts_with("strata-sums 1\nvocab 2048\ntokenizer 00000abc\nbin 1048577 00000001 ffffffff\n"
                       "idx 34 00000007\ncrc32c "))
      << text;
  const auto again = ParseTokenSums(text);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(*again, sums);
}

TEST(TokenSums, EveryChangeOfABitOrTheLengthIsFound) {
  const std::string text = ToText({2048, 0xabc, {5, {1}}, {34, {7}}});
  for (size_t i = 0; i < text.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string bad = text;
      bad[i] = static_cast<char>(bad[i] ^ (1 << bit));
      EXPECT_FALSE(ParseTokenSums(bad).ok()) << i;
    }
    EXPECT_FALSE(ParseTokenSums(text.substr(0, i)).ok()) << i;
  }
  EXPECT_FALSE(ParseTokenSums(text + "\n").ok());
}

TEST(TokenSums, WhatCannotBeIsRefusedThoughItsChecksumIsRight) {
  EXPECT_FALSE(ParseTokenSums(ToText({0, 0, {5, {1}}, {34, {7}}})).ok());
  EXPECT_FALSE(ParseTokenSums(ToText({8, 0, {-5, {}}, {34, {7}}})).ok());
  EXPECT_FALSE(ParseTokenSums(ToText({8, 0, {5, {}}, {34, {7}}})).ok());
  EXPECT_FALSE(ParseTokenSums(ToText({8, 0, {5, {1, 2}}, {34, {7}}})).ok());
  EXPECT_FALSE(ParseTokenSums(ToText({8, 0, {int64_t{1} << 62, {1}}, {34, {7}}})).ok());
}

TEST(TokenSums, ChecksNameThePlace) {
  std::string text = Text(kSumBlockBytes + 100);
  const FileSums sums = Summed(text, text.size());
  EXPECT_TRUE(CheckBytes(sums, "f", Bytes(text)).ok());
  text[kSumBlockBytes + 3] ^= 4;
  EXPECT_THAT(std::string(CheckBytes(sums, "f", Bytes(text)).message()),
              HasSubstr("f: bytes 1048576 to 1048675 are not those that were written"));
  text.pop_back();
  EXPECT_EQ(CheckBytes(sums, "f", Bytes(text)).message(), "f: 1048675 bytes, but 1048676 were written (by its .sum)");
}

}  // namespace
}  // namespace strata
