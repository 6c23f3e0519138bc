#include "checkpoint/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>

#include "checkpoint/safetensors_folder.h"
#include "tests/testing/temp_dir.h"

namespace strata {
namespace {

using ::testing::HasSubstr;

// What the safetensors library writes of {"b": int64 [1], "a": float32 [2, 1], "c": float32 [1]} with {"format": "pt"}.
constexpr std::string_view kHeader =
    R"({"__metadata__":{"format":"pt"},"b":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},)"
    R"("a":{"dtype":"F32","shape":[2,1],"data_offsets":[8,16]},"c":{"dtype":"F32","shape":[],"data_offsets":[16,20]}})"
    "     ";

std::string FileOf(std::string_view header, std::string_view data) {
  std::string file;
  for (int i = 0; i < 8; ++i) file.push_back(static_cast<char>(header.size() >> (8 * i)));
  return file.append(header).append(data);
}

std::string Data(size_t bytes) {
  std::string data(bytes, '\0');
  for (size_t i = 0; i < bytes; ++i) data[i] = static_cast<char>(i + 1);
  return data;
}

void WriteFile(const std::string& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }

std::string ReadFile(const std::string& path) { return ReadText(Env::Posix(), path).value(); }

std::string Text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TEST(SafetensorsHeader, IsParsedAndPrintedAsTheLibraryDoes) {
  const auto header = ParseSafetensorsHeader(kHeader);
  ASSERT_TRUE(header.ok()) << header.status();
  ASSERT_EQ(header->tensors.size(), 3u);
  EXPECT_EQ(header->tensors[1].name, "a");
  EXPECT_EQ(header->tensors[1].type, StoredType::kF32);
  EXPECT_EQ(header->tensors[1].shape, (Shape{2, 1}));
  EXPECT_EQ(header->tensors[1].offset, 8);
  EXPECT_EQ(header->metadata, (std::vector<std::pair<std::string, std::string>>{{"format", "pt"}}));
  SafetensorsHeader again;
  again.metadata = header->metadata;
  again.tensors = {header->tensors[2], header->tensors[1], header->tensors[0]};
  LayOutSafetensors(again.tensors);
  EXPECT_EQ(PrintSafetensorsHeader(again), kHeader);
  EXPECT_EQ(PrintSafetensorsHeader({}), "{}      ");
}

struct Refused {
  const char* name;
  std::string text;
  const char* why;
};
class RefusedHeader : public ::testing::TestWithParam<Refused> {};
TEST_P(RefusedHeader, SaysWhy) {
  const auto header = ParseSafetensorsHeader(GetParam().text);
  EXPECT_EQ(header.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(header.status().message()), HasSubstr(GetParam().why));
}
std::string One(const char* dtype, const char* shape, const char* offsets) {
  return std::string(R"({"x":{"dtype":")") + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}";
}
INSTANTIATE_TEST_SUITE_P(
    All, RefusedHeader,
    ::testing::Values(
        Refused{"NotJson", "{", "not a JSON object"}, Refused{"Array", "[]", "not a JSON object"},
        Refused{"Deep", R"({"x":{"shape":[[1]]}})", "nested too deep"},
        Refused{"Type", One("F4", "[4]", "[0,2]"), R"(tensor "x": dtype "F4" is not read)"},
        Refused{"Negative", One("F32", "[-1]", "[0,4]"), "shape must hold integers"},
        Refused{"Fraction", One("F32", "[1.5]", "[0,4]"), "shape must hold integers"},
        Refused{"Empty", One("F32", "[0]", "[0,0]"), "empty or too large"},
        Refused{"Overflow", One("F32", "[4294967296,4294967296,4294967296]", "[0,0]"), "empty or too large"},
        Refused{"Dims", One("U8", "[1,1,1,1,1,1,1]", "[0,1]"), "more than 6"},
        Refused{"Offsets", One("F32", "[1]", "[0,8]"), "are not the 4 bytes"},
        Refused{"Backwards", One("F32", "[1]", "[8,4]"), "are not the 4 bytes"},
        Refused{"Beyond", One("F32", "[1]", "[2251799813685248,2251799813685252]"), "integers in [0, "},
        Refused{"Gap", One("F32", "[1]", "[4,8]"), "begins at byte 4, not at 0"},
        Refused{
            "Overlap",
            R"({"x":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"y":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}})",
            "begins at byte 1, not at 2"},
        Refused{"Metadata", R"({"__metadata__":{"a":1}})", "must hold strings"},
        Refused{"MoreKeys", R"({"x":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"y":0}})", "must be an object"}),
    [](const auto& info) { return std::string(info.param.name); });

class SafetensorsTest : public ::testing::Test {
 protected:
  TempDir dir_;
  Env& env_ = Env::Posix();
};

TEST_F(SafetensorsTest, AFileIsWrittenAgainByteForByte) {
  const std::string data = Data(20), text = FileOf(kHeader, data);
  WriteFile(dir_.path("in"), text);
  const auto file = SafetensorsFile::Open(env_, dir_.path("in"));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->header_text(), kHeader);
  std::vector<std::string> filled;
  const absl::Status written = WriteSafetensors(env_, dir_.path("out"), file->header(), file->header_text(),
                                                [&](const StoredTensor& t, std::span<std::byte> out) {
                                                  filled.push_back(t.name);
                                                  return file->Read(t.offset, out);
                                                });
  ASSERT_TRUE(written.ok()) << written;
  EXPECT_EQ(ReadFile(dir_.path("out")), text);
  EXPECT_EQ(filled, (std::vector<std::string>{"b", "a", "c"}));
  EXPECT_FALSE(env_.Exists(dir_.path("out.tmp")));
}

TEST_F(SafetensorsTest, AFailedWriteLeavesTheOldFile) {
  WriteFile(dir_.path("out"), "old");
  const SafetensorsHeader header = *ParseSafetensorsHeader(kHeader);
  const absl::Status written = WriteSafetensors(
      env_, dir_.path("out"), header, std::string(kHeader), [](const StoredTensor& t, std::span<std::byte>) {
        return t.name == "c" ? absl::DataLossError("c is lost") : absl::OkStatus();
      });
  EXPECT_EQ(written.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(ReadFile(dir_.path("out")), "old");
}

TEST_F(SafetensorsTest, FilesThatAreNone) {
  for (const std::string& text :
       {std::string(), std::string("{}"), FileOf("{}", "").substr(0, 9),
        std::string("\xff\xff\xff\xff\xff\xff\xff\xff{}"), FileOf(kHeader, Data(19)), FileOf(kHeader, Data(21))}) {
    WriteFile(dir_.path("x"), text);
    const absl::Status status = SafetensorsFile::Open(env_, dir_.path("x")).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text.size();
    EXPECT_THAT(std::string(status.message()), HasSubstr(dir_.path("x")));
  }
  EXPECT_EQ(SafetensorsFile::Open(env_, dir_.path("none")).status().code(), absl::StatusCode::kNotFound);
  std::filesystem::create_symlink(dir_.path("x"), dir_.path("link"));
  EXPECT_FALSE(SafetensorsFile::Open(env_, dir_.path("link")).ok());
}

// 16 bytes a tensor: u8 [4, 4] holding first, first + 1, ...
std::string OneTensor(const std::string& name, char first) {
  SafetensorsHeader header;
  header.tensors = {{name, StoredType::kU8, {4, 4}, 0}};
  std::string data = Data(16);
  for (char& c : data) c = static_cast<char>(c - 1 + first);
  return FileOf(PrintSafetensorsHeader(header), data);
}

TEST_F(SafetensorsTest, ReadsBoxesOfSeveralFiles) {
  WriteFile(dir_.path(ShardName(1, 2)), OneTensor("a", 0));
  WriteFile(dir_.path(ShardName(2, 2)), OneTensor("b", 100));
  const std::string index =
      R"({"metadata":{"total_size":32},"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}})";
  WriteFile(dir_.path(kSafetensorsIndex), index);
  const auto folder = SafetensorsFolder::Open(env_, dir_.path());
  ASSERT_TRUE(folder.ok()) << folder.status();
  EXPECT_EQ(folder->tensors().size(), 2u);
  EXPECT_EQ(folder->Find("c"), nullptr);
  std::vector<std::byte> box(4);
  ASSERT_TRUE(folder->Read(*folder->Find("b"), {1, 2}, {2, 2}, box).ok());
  EXPECT_EQ(Text(box), std::string({106, 107, 110, 111}));
  EXPECT_FALSE(folder->Read(*folder->Find("b"), {1, 3}, {2, 2}, box).ok());

  WriteFile(dir_.path(kSafetensorsIndex), R"({"weight_map":{"a":"model-00001-of-00002.safetensors"}})");
  EXPECT_TRUE(SafetensorsFolder::Open(env_, dir_.path()).ok());  // the other file is not of this model
  const auto refused = [&](const std::string& map, const char* why) {
    WriteFile(dir_.path(kSafetensorsIndex), R"({"weight_map":)" + map + "}");
    EXPECT_THAT(std::string(SafetensorsFolder::Open(env_, dir_.path()).status().message()), HasSubstr(why));
  };
  refused(R"({"b":"model-00001-of-00002.safetensors"})", R"(holds tensor "a", which)");
  refused(R"({"a":"model-00001-of-00002.safetensors","x":"model-00001-of-00002.safetensors"})", R"(has no tensor "x")");
  refused(R"({"a":"../model.safetensors"})", "its file must be");
  refused(R"({"a":"model-00003-of-00002.safetensors"})", "its file must be");
  refused(R"([])", "weight_map");
}

TEST_F(SafetensorsTest, AFolderWithoutAModelSaysWhatItLacks) {
  const absl::Status status = SafetensorsFolder::Open(env_, dir_.path()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("neither model.safetensors nor model.safetensors.index.json"));
}

TEST(SafetensorsNames, OnlyTheirOwnForm) {
  for (const char* good :
       {"model.safetensors", "model-00001-of-00001.safetensors", "model-00007-of-00163.safetensors"}) {
    EXPECT_TRUE(IsSafetensorsName(good)) << good;
  }
  for (const char* bad : {"", "Model.safetensors", "model.safetensors.tmp", "model-00000-of-00001.safetensors",
                          "model-0001-of-00001.safetensors", "model-00001-of-0000x.safetensors", "x/model.safetensors",
                          "model-00001-of-00001.safetensor2"}) {
    EXPECT_FALSE(IsSafetensorsName(bad)) << bad;
  }
  EXPECT_EQ(ShardName(3, 12), "model-00003-of-00012.safetensors");
}

// ---- types of numbers

std::vector<std::byte> Bytes(const void* data, size_t bytes) {
  std::vector<std::byte> result(bytes);
  std::memcpy(result.data(), data, bytes);
  return result;
}
template <typename To, typename From>
To Converted(StoredType from, From value, StoredType to) {
  std::vector<std::byte> out(sizeof(To));
  ConvertFloats(from, Bytes(&value, sizeof(From)), to, out);
  To result;
  std::memcpy(&result, out.data(), sizeof(To));
  return result;
}
float Half(uint16_t bits) { return Converted<float>(StoredType::kF16, bits, StoredType::kF32); }
uint16_t ToHalf(float f) { return Converted<uint16_t>(StoredType::kF32, f, StoredType::kF16); }

TEST(StoredTypes, EveryHalfComesBackFromAFloat) {
  EXPECT_EQ(Half(0x3c00), 1.0f);
  EXPECT_EQ(Half(0xc500), -5.0f);
  EXPECT_EQ(Half(0x7bff), 65504.0f);
  EXPECT_EQ(Half(0x0001), 0x1p-24f);
  EXPECT_EQ(Half(0x03ff), 1023 * 0x1p-24f);
  EXPECT_EQ(Half(0xfc00), -std::numeric_limits<float>::infinity());
  EXPECT_TRUE(std::isnan(Half(0x7e01)));
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    ASSERT_EQ(ToHalf(Half(half)), half) << bits;
  }
}

// Halfway between two neighbours the even one, above it the upper one.
TEST(StoredTypes, HalvesAreRoundedToNearestEven) {
  for (uint32_t bits = 0; bits < 0x7bff; ++bits) {
    const auto half = static_cast<uint16_t>(bits), next = static_cast<uint16_t>(bits + 1);
    const float middle = (Half(half) + Half(next)) / 2;  // exact
    ASSERT_EQ(ToHalf(middle), bits % 2 == 0 ? half : next) << bits;
    ASSERT_EQ(ToHalf(std::nextafter(middle, 1e6f)), next) << bits;
    ASSERT_EQ(ToHalf(std::nextafter(middle, 0.0f)), half) << bits;
  }
  EXPECT_EQ(ToHalf(65519.9f), 0x7bff);
  EXPECT_EQ(ToHalf(65520.0f), 0x7c00);
  EXPECT_EQ(ToHalf(-1e30f), 0xfc00);
  EXPECT_EQ(ToHalf(std::numeric_limits<float>::quiet_NaN()) & 0x7fff, 0x7e00);
}

TEST(StoredTypes, WidenedNumbersComeBack) {
  const float f = 0.1f;
  EXPECT_EQ(
      Converted<float>(StoredType::kF64, Converted<double>(StoredType::kF32, f, StoredType::kF64), StoredType::kF32),
      f);
  const uint16_t b = BF16(0.1f).bits;
  EXPECT_EQ(Converted<double>(StoredType::kBF16, b, StoredType::kF64), 0.10009765625);
  EXPECT_EQ(Converted<uint16_t>(StoredType::kF32, Converted<float>(StoredType::kBF16, b, StoredType::kF32),
                                StoredType::kBF16),
            b);
}

TEST(StoredTypes, NamesAndSizes) {
  for (int i = 0; i <= static_cast<int>(StoredType::kU64); ++i) {
    const auto type = static_cast<StoredType>(i);
    EXPECT_EQ(StoredTypeOf(Name(type)), type);
    if (const auto dtype = DTypeOf(type)) {
      EXPECT_EQ(StoredTypeOf(*dtype), type);
      EXPECT_EQ(SizeOf(*dtype), SizeOf(type));
    }
  }
  EXPECT_EQ(StoredTypeOf("f32"), std::nullopt);
}

}  // namespace
}  // namespace strata
