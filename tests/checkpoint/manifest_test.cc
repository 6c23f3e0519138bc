// The manifest's text and back; texts made to harm, with a right checksum, are refused with a reason.

#include "checkpoint/manifest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "core/base/crc32c.h"
#include "core/base/philox.h"

namespace strata {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::ordered_json;

FileRecord File(int rank, int64_t bytes) {
  FileRecord file{DataFileName(rank), bytes, 0, {}};
  for (int64_t begin = 0; begin < bytes; begin += kBlockBytes) {
    const std::vector<std::byte> block(std::min(kBlockBytes, bytes - begin), std::byte{7});
    file.block_crc32c.push_back(Crc32c(block));
    file.crc32c = Crc32cCombine(file.crc32c, file.block_crc32c.back(), std::ssize(block));
  }
  return file;
}

// "a": f32[4, 6] in two boxes; "b": bf16[3] and "c", a scalar, in one each.
Manifest Example() {
  return {42,
          {"dp=2", 99, ~uint64_t{0}, "x = \"\\ \n\u00e9\""},
          {File(0, 4000), File(1, kBlockBytes + 5)},
          {{"a", DType::kF32, {4, 6}, {{{0, 0}, {2, 6}, 0, 1000}, {{2, 0}, {2, 6}, 1, 1000}}},
           {"b", DType::kBF16, {3}, {{{0}, {3}, 1, 2000}}},
           {"c", DType::kF64, {}, {{{}, {}, 0, 2000}}}}};
}

// The checksum made right again.
std::string Sealed(std::string text) {
  if (text.size() < 19) return text;
  text.replace(11, 8, 8, '0');
  return text.replace(11, 8, absl::StrFormat("%08x", Crc32c(std::as_bytes(std::span(text)))));
}

std::string Refusal(const std::string& text) {
  const auto manifest = ParseManifest(text);
  return manifest.ok() ? "" : std::string(manifest.status().message());
}

TEST(Manifest, TextAndBack) {
  const std::string text = ToJson(Example());
  const auto parsed = ParseManifest(text);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(ToJson(*parsed), text);
  EXPECT_EQ(parsed->step, 42);
  EXPECT_EQ(parsed->meta.seed, ~uint64_t{0});
  EXPECT_EQ(parsed->meta.config, Example().meta.config);
  EXPECT_EQ(parsed->files[1].block_crc32c.size(), 2u);
  EXPECT_EQ(parsed->tensors[0].boxes[1].offset, (Shape{2, 0}));
  EXPECT_EQ(parsed->tensors[2].global, Shape{});
  EXPECT_EQ(Sealed(text), text);
  EXPECT_TRUE(Json::accept(text));
}

TEST(Manifest, OwnChecksum) {
  const std::string text = ToJson(Example());
  for (size_t i = 0; i < text.size(); ++i) {
    std::string bad = text;
    bad[i] = static_cast<char>(bad[i] ^ (1 << i % 8));
    ASSERT_EQ(ParseManifest(bad).status().code(), absl::StatusCode::kDataLoss) << i;
    ASSERT_FALSE(ParseManifest(text.substr(0, i)).ok()) << i;
  }
  EXPECT_FALSE(ParseManifest(text + " ").ok());
}

TEST(Manifest, HostileValues) {
  struct Case {
    const char* where;  // JSON pointer
    const char* value;  // JSON; null removes the key
    const char* refusal;
  };
  const Case cases[] = {
      {"/step", "-1", "manifest.step must be an integer"},
      {"/step", "1.5", "manifest.step must be an integer"},
      {"/step", "18446744073709551615", "manifest.step must be an integer"},
      {"/step", "\"1\"", "manifest.step must be an integer"},
      {"/step", "null", "manifest.step must be an integer"},
      {"/version", "2", "manifest.version is not 1"},
      {"/format", "\"other\"", "manifest.format"},
      {"/block_bytes", "1", "manifest.block_bytes"},
      {"/config", "[]", "manifest.config must be a string"},
      {"/files", "{}", "manifest.files must be an array"},
      {"/files/0", "7", "files[0].name must be a string"},
      {"/files/0/bytes", "-1", "files[0].bytes"},
      {"/files/0/bytes", "9223372036854775807", "files[0].bytes"},
      {"/files/0/bytes", "1125899906842624", "data-00000.h5: 1 block checksums for"},
      {"/files/0/crc32c", "1", "do not add up"},
      {"/files/0/crc32c", "4294967296", "files[0].crc32c"},
      {"/files/0/block_crc32c", "[]", "0 block checksums"},
      {"/files/0/block_crc32c", "[-1]", "must hold integers"},
      {"/files/0/name", "\"data-00001.h5\"", "is not in the list of files"},
      {"/files/1/name", "\"data-00000.h5\"", "is not in the list of files"},
      {"/tensors/0/name", "\"\"", "not a tensor name"},
      {"/tensors/0/name", "\"a/b\"", "not a tensor name"},
      {"/tensors/0/name", "\"b\"", "b is listed twice"},
      {"/tensors/0/dtype", "\"f33\"", "tensors[0].dtype is not a known dtype"},
      {"/tensors/0/shape", "[4]", "is not inside shape [4]"},
      {"/tensors/0/shape", "[4, 6, 1, 1, 1, 1, 1]", "has 7 dims"},
      {"/tensors/0/shape", "[-4, 6]", "must hold integers"},
      {"/tensors/0/shape", "[0, 6]", "is empty or too large"},
      {"/tensors/0/shape", "[72057594037927936, 6]", "is empty or too large"},
      {"/tensors/0/shape", "[4611686018427387904, 4611686018427387904]", "must hold integers"},
      {"/tensors/0/shape", "[5, 6]", "cover 24 of 30 elements"},
      {"/tensors/0/boxes", "[]", "cover 0 of 24 elements"},
      {"/tensors/0/boxes/1/offset", "[1, 0]", "overlap"},
      {"/tensors/0/boxes/1/offset", "[3, 0]", "is not inside"},
      {"/tensors/0/boxes/1/offset", "[72057594037927936, 0]", "is not inside"},
      {"/tensors/0/boxes/1/size", "[2, 5]", "cover 22 of 24 elements"},
      {"/tensors/0/boxes/1/size", "[0, 6]", "is not inside"},
      {"/tensors/0/boxes/1/size", "[2]", "is not inside"},
      {"/tensors/0/boxes/0/byte_offset", "-8", "byte_offset"},
      {"/tensors/0/boxes/0/byte_offset", "3999", "are not inside data-00000.h5"},
      {"/tensors/0/boxes/0/byte_offset", "1125899906842624", "are not inside data-00000.h5"},
      {"/tensors/0/boxes/0/byte_offset", "1999", "a and c share bytes of data-00000.h5"},
      {"/tensors/0/boxes/0/file", "\"data-00002.h5\"", "is not in the list of files"},
      {"/tensors/2/boxes/0/offset", "[0]", "is not inside"},
  };
  for (const Case& c : cases) {
    Json json = Json::parse(ToJson(Example()));
    const Json::json_pointer where(c.where);
    json[where] = Json::parse(c.value);
    EXPECT_THAT(Refusal(Sealed(json.dump())), HasSubstr(c.refusal)) << c.where << " = " << c.value;
  }
}

TEST(Manifest, HostileFileNames) {
  for (const char* name : {"../data-0000.h5", "/etc/passwd", "data-00000.h5/", "data-0000.h5", "data-0000a.h5",
                           "data-000000.h5", "DATA-00000.h5", "manifest.json", "..", ""}) {
    const std::string text = absl::StrReplaceAll(ToJson(Example()), {{"data-00000.h5", name}});
    EXPECT_THAT(Refusal(Sealed(text)), HasSubstr("file name is not of the form")) << name;
  }
}

TEST(Manifest, HostileTexts) {
  const std::string text = ToJson(Example());
  const std::string deep = std::string(1000000, '[');
  EXPECT_THAT(Refusal(Sealed(absl::StrReplaceAll(text, {{"\"step\":42", "\"step\":" + deep}}))), HasSubstr("too deep"));
  EXPECT_THAT(Refusal(Sealed(text.substr(0, text.size() - 1))), HasSubstr("not JSON"));
  EXPECT_THAT(Refusal(Sealed(text + "{}")), HasSubstr("not JSON"));
  EXPECT_THAT(Refusal(Sealed(absl::StrReplaceAll(text, {{"dp=2", "\xff\xfe"}}))), HasSubstr("not JSON"));
  for (const char* t : {"", "{}", "[]", "{\"crc32c\":\"00000000\",", "{\"crc32c\":\"00000000\"}"}) {
    EXPECT_FALSE(ParseManifest(Sealed(t)).ok()) << t;
  }
}

// Random edits under a right checksum: refused, or a manifest that Validate accepts; never a crash.
TEST(Manifest, RandomEdits) {
  const std::string text = ToJson(Example());
  constexpr std::string_view kBytes = "0123456789-+.eE\"\\[]{},:nulltrue \x01\xff";
  int accepted = 0;
  for (uint64_t i = 0; i < 5000; ++i) {
    std::string bad = text;
    for (uint64_t edit = 0; edit <= i % 3; ++edit) {
      const PhiloxBlock r = Philox(8, edit, i);
      const size_t at = 20 + r[0] % (bad.size() - 20);
      const char c = kBytes[r[1] % kBytes.size()];
      if (r[2] % 3 == 0) {
        bad.erase(at, 1);
      } else if (r[2] % 3 == 1) {
        bad.insert(at, 1, c);
      } else {
        bad[at] = c;
      }
    }
    const auto manifest = ParseManifest(Sealed(bad));
    if (!manifest.ok()) continue;
    EXPECT_TRUE(Validate(*manifest).ok());
    ++accepted;
  }
  EXPECT_LT(accepted, 2500);
}

TEST(Manifest, ShardRecordTextAndBack) {
  const ShardRecord shard{File(3, 4000), {{"a", DType::kF32, {4, 6}, {{{0, 0}, {2, 6}, 0, 1000}}}}};
  const std::string text = ToJson(shard);
  const auto parsed = ParseShardRecord(text);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(ToJson(*parsed), text);
  for (size_t i = 0; i < text.size(); ++i) EXPECT_FALSE(ParseShardRecord(text.substr(0, i)).ok()) << i;
  for (const char* t : {"[]", "7", "{\"file\":[]}", "null"}) EXPECT_FALSE(ParseShardRecord(t).ok()) << t;
}

}  // namespace
}  // namespace strata
