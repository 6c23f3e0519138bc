#include "launch/data/indexed_dataset.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "core/base/status.h"
#include "tests/testing/temp_dir.h"

namespace strata {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Documents = std::vector<std::vector<int32_t>>;

absl::Status Write(const std::string& prefix, int64_t vocab_size, const Documents& documents) {
  ASSIGN_OR_RETURN(const auto writer, IndexedDatasetWriter::Create(Env::Posix(), prefix, vocab_size));
  for (const auto& document : documents) RETURN_IF_ERROR(writer->AddDocument(document));
  return writer->Finish();
}

std::vector<int32_t> ReadRange(const IndexedDataset& dataset, int64_t begin, int64_t count) {
  std::vector<int32_t> tokens(count);
  EXPECT_TRUE(dataset.Read(begin, tokens).ok());
  return tokens;
}

class IndexedDatasetTest : public ::testing::Test {
 protected:
  std::string Text(const std::string& name) { return *ReadText(env_, dir_.path(name)); }
  void Put(const std::string& name, const std::string& text) {
    ASSERT_TRUE(WriteTextAtomically(env_, dir_.path(name), text).ok());
  }

  Env& env_ = Env::Posix();
  TempDir dir_;
  const std::string prefix_ = dir_.path("train");
};

TEST_F(IndexedDatasetTest, RoundTripInBothWidths) {
  const Documents documents = {{5, 0, 65535}, {}, {7}, {1, 2, 3, 4}};
  const std::pair<int64_t, int> cases[] = {{65536, 2}, {65537, 4}};
  for (const auto& [vocab_size, token_bytes] : cases) {
    ASSERT_TRUE(Write(prefix_, vocab_size, documents).ok());
    const auto dataset = IndexedDataset::Open(env_, prefix_);
    ASSERT_TRUE(dataset.ok()) << dataset.status();
    EXPECT_EQ(dataset->token_bytes(), token_bytes);
    EXPECT_EQ(dataset->num_tokens(), 8);
    EXPECT_EQ(dataset->num_sequences(), 4);
    EXPECT_EQ(dataset->num_documents(), 4);
    EXPECT_EQ(dataset->SequenceBegin(2), 3);
    EXPECT_EQ(dataset->SequenceBegin(4), 8);
    ASSERT_TRUE(dataset->sums().has_value());
    EXPECT_EQ(dataset->sums()->vocab, vocab_size);
    EXPECT_EQ(dataset->DocumentBegin(0), 0);
    EXPECT_EQ(dataset->DocumentBegin(1), 3);  // an empty one
    EXPECT_EQ(dataset->DocumentBegin(2), 3);
    EXPECT_EQ(dataset->DocumentBegin(4), 8);
    std::vector<int64_t> document_of;
    for (int64_t token = 0; token < 8; ++token) document_of.push_back(dataset->DocumentOf(token));
    EXPECT_THAT(document_of, ElementsAre(0, 0, 0, 2, 3, 3, 3, 3));
    EXPECT_THAT(ReadRange(*dataset, 0, 8), ElementsAre(5, 0, 65535, 7, 1, 2, 3, 4));
    EXPECT_THAT(ReadRange(*dataset, 2, 3), ElementsAre(65535, 7, 1));
    EXPECT_TRUE(ReadRange(*dataset, 8, 0).empty());
  }
}

TEST_F(IndexedDatasetTest, BytesAreMegatrons) {
  ASSERT_TRUE(Write(prefix_, 2048, {{1, 2, 515}, {4}}).ok());
  const std::string index(
      "MMIDIDX\0\0"
      "\x01\0\0\0\0\0\0\0"  // version
      "\x08"                // uint16
      "\x02\0\0\0\0\0\0\0"  // sequences
      "\x03\0\0\0\0\0\0\0"  // document indices
      "\x03\0\0\0"
      "\x01\0\0\0"  // lengths
      "\0\0\0\0\0\0\0\0"
      "\x06\0\0\0\0\0\0\0"  // byte offsets
      "\0\0\0\0\0\0\0\0"
      "\x01\0\0\0\0\0\0\0"
      "\x02\0\0\0\0\0\0\0",  // documents
      34 + 2 * 12 + 3 * 8);
  EXPECT_EQ(Text("train.idx"), index);
  EXPECT_EQ(Text("train.bin"), std::string("\x01\0\x02\0\x03\x02\x04\0", 8));
}

TEST_F(IndexedDatasetTest, EmptyDatasetOpens) {
  ASSERT_TRUE(Write(prefix_, 10, {}).ok());
  const auto dataset = IndexedDataset::Open(env_, prefix_);
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  EXPECT_EQ(dataset->num_tokens(), 0);
  EXPECT_EQ(dataset->num_documents(), 0);
}

TEST_F(IndexedDatasetTest, EveryTruncationAndExtensionIsAnError) {
  ASSERT_TRUE(Write(prefix_, 2048, {{1, 2, 3}, {4, 5}}).ok());
  const std::string index = Text("train.idx"), bin = Text("train.bin");
  for (size_t size = 0; size < index.size(); ++size) {
    Put("train.idx", index.substr(0, size));
    EXPECT_EQ(IndexedDataset::Open(env_, prefix_).status().code(), absl::StatusCode::kInvalidArgument) << size;
  }
  Put("train.idx", index + "x");
  EXPECT_FALSE(IndexedDataset::Open(env_, prefix_).ok());
  Put("train.idx", index);
  for (size_t size = 0; size < bin.size(); ++size) {
    Put("train.bin", bin.substr(0, size));
    EXPECT_FALSE(IndexedDataset::Open(env_, prefix_).ok()) << size;
  }
  Put("train.bin", bin + "xx");
  EXPECT_FALSE(IndexedDataset::Open(env_, prefix_).ok());
  Put("train.bin", bin);
  EXPECT_TRUE(IndexedDataset::Open(env_, prefix_).ok());
}

TEST_F(IndexedDatasetTest, EveryCorruptFieldIsNamed) {
  ASSERT_TRUE(Write(prefix_, 2048, {{1, 2, 3}, {4, 5}}).ok());
  const std::string index = Text("train.idx");
  struct Case {
    size_t at;
    char value;
    const char* message;
  };
  const Case cases[] = {
      {0, 'X', "MMIDIDX"},           {9, 2, "version 2"},
      {17, 5, "dtype code 5"},       {18, 3, "do not hold"},
      {25, '\x7f', "do not hold"},   {33, '\x7f', "do not hold"},
      {34, 4, "sequence 1 is at"},   {37, '\xff', "sequence 0 has"},
      {38, 1, "describes 4 tokens"}, {38, 9, "sequence 1 has"},
      {42, 2, "sequence 0 is at"},   {57, '\x80', "sequence 1 is at"},
      {58, 1, "document index 0"},   {66, 3, "document index 1"},
      {74, 1, "document index 2"},
  };
  for (const Case& c : cases) {
    std::string corrupt = index;
    corrupt[c.at] = c.value;
    Put("train.idx", corrupt);
    const absl::Status status = IndexedDataset::Open(env_, prefix_).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.at;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.message));
    EXPECT_THAT(std::string(status.message()), HasSubstr(dir_.path("train.idx")));
  }
}

TEST_F(IndexedDatasetTest, MissingFilesAreNotFound) {
  EXPECT_EQ(IndexedDataset::Open(env_, prefix_).status().code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(Write(prefix_, 10, {{1}}).ok());
  ASSERT_TRUE(env_.RemoveAll(dir_.path("train.bin")).ok());
  const absl::Status status = IndexedDataset::Open(env_, prefix_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("train.bin"));
}

TEST_F(IndexedDatasetTest, UnfinishedWriterLeavesNothing) {
  {
    auto writer = IndexedDatasetWriter::Create(env_, prefix_, 10);
    ASSERT_TRUE(writer.ok()) << writer.status();
    EXPECT_TRUE((*writer)->AddDocument(std::vector<int32_t>{1, 2}).ok());
    EXPECT_FALSE(env_.Exists(dir_.path("train.bin")));
    EXPECT_EQ((*writer)->AddDocument(std::vector<int32_t>{10}).code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ((*writer)->AddDocument(std::vector<int32_t>{-1}).code(), absl::StatusCode::kInvalidArgument);
  }
  EXPECT_TRUE(env_.List(dir_.path())->empty());
}

TEST_F(IndexedDatasetTest, AFinishedWriterLeavesThreeFiles) {
  ASSERT_TRUE(Write(prefix_, 10, {{1}}).ok());
  EXPECT_THAT(*env_.List(dir_.path()), ElementsAre("train.bin", "train.idx", "train.sum"));
}

TEST_F(IndexedDatasetTest, OpensWithoutSumsAndThroughLinks) {
  ASSERT_TRUE(Write(prefix_, 10, {{1, 2}}).ok());
  ASSERT_TRUE(env_.RemoveAll(dir_.path("train.sum")).ok());
  for (const char* name : {"/train.bin", "/train.idx"}) {
    std::filesystem::create_symlink(dir_.path() + name, dir_.path() + "/link" + std::string(name).substr(6));
  }
  const auto dataset = IndexedDataset::Open(env_, dir_.path("link"));
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  EXPECT_FALSE(dataset->sums().has_value());
  EXPECT_THAT(ReadRange(*dataset, 0, 2), ElementsAre(1, 2));
}

TEST_F(IndexedDatasetTest, SumsFindEveryFlippedBitOfTheIndexAndOfThemselves) {
  ASSERT_TRUE(Write(prefix_, 2048, {{1, 2, 3}, {4, 5}}).ok());
  for (const char* name : {"train.idx", "train.sum"}) {
    const std::string good = Text(name);
    for (size_t i = 0; i < good.size(); ++i) {
      std::string bad = good;
      bad[i] ^= 4;
      Put(name, bad);
      const absl::Status status = IndexedDataset::Open(env_, prefix_).status();
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name << " " << i;
      EXPECT_THAT(std::string(status.message()), HasSubstr(dir_.path(name)));
    }
    Put(name, good);
  }
}

TEST_F(IndexedDatasetTest, AFileThatIsCutShortWhileItIsOpenIsAnError) {
  for (const int64_t vocab : {10, 1 << 20}) {
    ASSERT_TRUE(Write(prefix_, vocab, {{1, 2, 3, 4}}).ok());
    const auto dataset = IndexedDataset::Open(env_, prefix_);
    ASSERT_TRUE(dataset.ok()) << dataset.status();
    std::filesystem::resize_file(dir_.path("train.bin"), 2 * dataset->token_bytes());
    std::vector<int32_t> tokens(2);
    EXPECT_TRUE(dataset->Read(0, tokens).ok());
    const absl::Status status = dataset->Read(1, tokens);
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("train.bin: ends at byte"));
  }
}

}  // namespace
}  // namespace strata
