#include "launch/tokenizer/model_check.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>

#include "absl/strings/match.h"
#include "core/base/env.h"

namespace strata {
namespace {

std::string Bytes(uint32_t value) { return std::string(reinterpret_cast<const char*>(&value), 4); }

std::string Varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  return out + static_cast<char>(value);
}

std::string Message(int field, const std::string& bytes) {
  return Varint(static_cast<uint64_t>(field) << 3 | 2) + Varint(bytes.size()) + bytes;
}

std::string Piece(const std::string& text, float score = -1) {
  uint32_t bits;
  std::memcpy(&bits, &score, 4);
  return Message(1, Message(1, text) + "\x15" + Bytes(bits));
}

// A model whose normalizer has a trie of 256 units, with unit `at` set to `unit`, and the replacements "ab" and "c".
std::string WithTrie(size_t at, uint32_t unit, const std::string& replacements = std::string("ab\0c\0", 5)) {
  std::string trie(1024, '\0');
  trie.replace(at * 4, 4, Bytes(unit));
  return Piece("a") + Message(3, Message(2, Bytes(1024) + trie + replacements));
}

void ExpectBad(const std::string& model, const std::string& why) {
  const absl::Status status = CheckSentencePieceModel(model);
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_TRUE(absl::StrContains(std::string(status.message()), why)) << status;
}

TEST(ModelCheck, ARealModelPassesAndEveryShorterOneIsRefusedOrWhole) {
  const std::string path = STRATA_SOURCE_DIR "/tests/fuzz/corpus/tokenizer_model/trained";
  const std::string model = ReadText(Env::Posix(), path).value_or("");
  ASSERT_GT(model.size(), 1000u);
  EXPECT_TRUE(CheckSentencePieceModel(model).ok());
  int whole = 0;
  for (size_t size = 0; size < 1000; ++size) whole += CheckSentencePieceModel(model.substr(0, size)).ok();
  EXPECT_GT(whole, 10);  // cut between two pieces
  EXPECT_LT(whole, 100);
}

TEST(ModelCheck, Pieces) {
  EXPECT_TRUE(CheckSentencePieceModel(Piece("a")).ok());
  ExpectBad("", "0 pieces");
  ExpectBad(Piece(""), "piece 0 is empty");
  ExpectBad(Piece("a") + Piece(std::string("b\0", 2)), "piece 1 is empty or has a NUL");
  ExpectBad(Piece("a", std::numeric_limits<float>::quiet_NaN()), "no finite number");
  ExpectBad(Piece("a", std::numeric_limits<float>::infinity()), "no finite number");
  ExpectBad(Message(1,
                    "\x0a\x05"
                    "a"),
            "piece 0 is cut short");
  ExpectBad(Piece("a") + "\x0b", "cut short");  // a group
  ExpectBad(Piece("a") + std::string(11, '\xff'), "cut short");
}

TEST(ModelCheck, CharacterMap) {
  constexpr uint32_t kHasLeaf = 1 << 8;
  const auto offset = [](uint32_t to) { return to << 10; };
  EXPECT_TRUE(CheckSentencePieceModel(WithTrie(0, 0)).ok());
  EXPECT_TRUE(CheckSentencePieceModel(WithTrie(7, offset(9) | kHasLeaf)).ok());
  ExpectBad(WithTrie(7, offset(256)), "leads out of itself");
  ExpectBad(WithTrie(255, offset(1u << 20) | 1u << 9), "leads out of itself");
  ExpectBad(WithTrie(0, 0, "ab"), "do not end");
  std::string value = WithTrie(1, offset(3) | kHasLeaf);  // its value lies at 1 ^ 3 = 2
  const size_t at = value.size() - 5 - 1024 + size_t{2} * 4;
  EXPECT_TRUE(CheckSentencePieceModel(value).ok());
  value.replace(at, 4, Bytes(4u | 1u << 31));  // the last replacement
  EXPECT_TRUE(CheckSentencePieceModel(value).ok());
  value.replace(at, 4, Bytes(5u | 1u << 31));
  ExpectBad(value, "leads out of itself");
  ExpectBad(Piece("a") + Message(3, Message(2, "\x01")), "character map of the normalizer is cut short");
  ExpectBad(Piece("a") + Message(3, Message(2, Bytes(4096) + std::string(8, '\0'))), "is cut short");
}

}  // namespace
}  // namespace strata
