#include "launch/data/inspect.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "absl/strings/str_format.h"
#include "launch/data/build.h"
#include "launch/data/indexed_dataset.h"
#include "launch/tokenizer/tokenizer.h"
#include "tests/testing/temp_dir.h"

namespace strata {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class InspectTest : public ::testing::Test {
 protected:
  void Write(int64_t vocab, const std::vector<std::vector<int32_t>>& documents) {
    auto writer = IndexedDatasetWriter::Create(env_, prefix_, vocab, 0xabc);
    ASSERT_TRUE(writer.ok()) << writer.status();
    for (const auto& document : documents) ASSERT_TRUE((*writer)->AddDocument(document).ok());
    ASSERT_TRUE((*writer)->Finish().ok());
  }
  std::string Text(const std::string& name) { return *ReadUserFile(env_, dir_.path(name)); }
  void Put(const std::string& name, const std::string& text) {
    ASSERT_TRUE(WriteTextAtomically(env_, dir_.path(name), text).ok());
  }
  std::string Damage() {
    const auto verdict = VerifyDataset(env_, prefix_);
    EXPECT_EQ(verdict.status().code(), absl::StatusCode::kDataLoss);
    return std::string(verdict.status().message());
  }

  Env& env_ = Env::Posix();
  TempDir dir_;
  const std::string prefix_ = dir_.path("train");
};

TEST_F(InspectTest, DescribesWhatThereIs) {
  Write(2048, {{5, 6, 7}, {5}, {9, 2000, 9, 9, 9, 9, 9}});
  EXPECT_THAT(*DescribeDataset(env_, prefix_), ::testing::MatchesRegex(absl::StrFormat(
                                                   "%s\n"
                                                   "  format      Megatron index, version 1, uint16\n"
                                                   "  documents   3 of 1 to 7 tokens, median 3\n"
                                                   "  sequences   3\n"
                                                   "  tokens      11 in 22 bytes\n"
                                                   "  vocabulary  2048 pieces; 5 different ids, the largest is 2000\n"
                                                   "  checksums   bin [0-9a-f]{8}; idx [0-9a-f]{8} .*\n",
                                                   prefix_)));
  std::filesystem::remove(prefix_ + ".sum");
  const std::string text = *DescribeDataset(env_, prefix_);
  EXPECT_THAT(text, HasSubstr("vocabulary  not known; 5 different ids"));
  EXPECT_THAT(text, HasSubstr("checksums   none (there is no " + prefix_ + ".sum)"));
}

TEST_F(InspectTest, AnEmptyDatasetIsDescribedAndWhole) {
  Write(10, {});
  EXPECT_THAT(*DescribeDataset(env_, prefix_), HasSubstr("documents   0\n"));
  EXPECT_TRUE(VerifyDataset(env_, prefix_).ok());
}

TEST_F(InspectTest, AFolderStandsForItsDatasets) {
  EXPECT_THAT(DatasetsAt(env_, dir_.path("none")), ElementsAre(dir_.path("none")));
  Write(10, {{1}});
  EXPECT_THAT(DatasetsAt(env_, dir_.path()), ElementsAre(prefix_));
  EXPECT_THAT(DatasetsAt(env_, prefix_), ElementsAre(prefix_));
  Put("valid.idx", "");
  EXPECT_THAT(DatasetsAt(env_, dir_.path()), ElementsAre(prefix_, dir_.path("valid")));
}

TEST_F(InspectTest, EveryFlippedBitIsFoundAndItsPlaceNamed) {
  Write(2048, {{5, 6, 7}, {5}});
  for (const char* name : {"train.bin", "train.idx", "train.sum"}) {
    const std::string good = Text(name);
    for (size_t i = 0; i < good.size(); ++i) {
      std::string bad = good;
      bad[i] ^= 1 << i % 8;
      Put(name, bad);
      EXPECT_THAT(Damage(), HasSubstr(dir_.path(name)));
    }
    Put(name, good);
  }
  EXPECT_EQ(*VerifyDataset(env_, prefix_), prefix_ + ": whole: 2 documents, 4 tokens\n");
}

TEST_F(InspectTest, DamageOfALargeFileIsNamedByBlock) {
  std::vector<int32_t> tokens(3 * kSumBlockBytes / 2, 3);  // two bytes each: three blocks
  Write(2048, {tokens});
  std::string bad = Text("train.bin");
  bad[5] ^= 1;
  bad[2 * kSumBlockBytes + 1] ^= 1;
  Put("train.bin", bad);
  const std::string damage = Damage();
  EXPECT_THAT(damage, HasSubstr("train.bin: bytes 0 to 1048575 are not"));
  EXPECT_THAT(damage, HasSubstr("train.bin: bytes 2097152 to 3145727 are not"));
  EXPECT_EQ(std::ranges::count(damage, '\n'), 1);
  Put("train.bin", Text("train.bin").substr(0, 100));
  EXPECT_EQ(Damage(), prefix_ + ".bin: 100 bytes, but 3145728 were written (by its .sum)");
}

TEST_F(InspectTest, WithoutSumsTheIndexIsCheckedAndItSaysSo) {
  Write(100000, {{5, 6, 7}});
  std::filesystem::remove(prefix_ + ".sum");
  EXPECT_THAT(*VerifyDataset(env_, prefix_), HasSubstr("there is no .sum"));
  std::string bin = Text("train.bin");
  bin[11] = '\x80';
  Put("train.bin", bin);
  EXPECT_THAT(Damage(), HasSubstr("train.bin: byte 8: token -2147483641 is not in the vocabulary"));
  Put("train.bin", bin.substr(1));
  EXPECT_THAT(Damage(), HasSubstr("train.idx: sequence 0 has 3 tokens at byte 0 of a .bin of 11 bytes"));
}

// Sums that are right for a token that is not.
TEST_F(InspectTest, TokensBeyondTheVocabularyAreFound) {
  Write(2048, {{5, 6, 7}, {2000}});
  TokenSums sums = **ReadTokenSums(env_, prefix_);
  sums.vocab = 2000;
  Put("train.sum", ToText(sums));
  EXPECT_EQ(Damage(), prefix_ + ".bin: byte 6: token 2000 is not in the vocabulary of 2000");
  Write(2048, {std::vector<int32_t>(50, 2000)});
  sums = **ReadTokenSums(env_, prefix_);
  sums.vocab = 2000;
  Put("train.sum", ToText(sums));
  EXPECT_THAT(Damage(), ::testing::EndsWith("\nand 40 more"));
}

TEST_F(InspectTest, MissingFilesAreNotFound) {
  EXPECT_EQ(VerifyDataset(env_, prefix_).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(DescribeDataset(env_, prefix_).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(InspectTest, DocumentsAsText) {
  Put("in.jsonl", "{\"text\":\"One.\"}\n{\"text\":\"Two\\nlines.\"}\n{\"text\":\"Three.\"}\n");
  const auto report = BuildDataset(
      env_,
      {.inputs = {}, .jsonl = {dir_.path("in.jsonl")}, .out = dir_.path("d"), .vocab_size = 280, .valid_fraction = 0});
  ASSERT_TRUE(report.ok()) << report.status();
  const std::string prefix = report->train_prefix, tokenizer = TokenizerBeside(env_, prefix);
  EXPECT_EQ(tokenizer, report->tokenizer_path);
  const auto text = DocumentTexts(env_, prefix, tokenizer, 1, 3);
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_THAT(*text, ::testing::MatchesRegex(
                         "== document 1: [0-9]+ tokens\nTwo\nlines.\n== document 2: [0-9]+ tokens\nThree.\n"));
  const absl::Status range = DocumentTexts(env_, prefix, tokenizer, 1, 4).status();
  EXPECT_EQ(range.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(range.message()), HasSubstr("has documents 0 to 2, not 1:4"));

  EXPECT_TRUE(VerifyDataset(env_, prefix).ok());
  const auto other =
      Tokenizer::Train(std::vector<std::string_view>{"Quite another text, in other words, with other pieces."}, 285);
  ASSERT_TRUE(other.ok() && other->Save(env_, tokenizer).ok());
  EXPECT_THAT(std::string(DocumentTexts(env_, prefix, tokenizer, 0, 1).status().message()),
              HasSubstr("is not the tokenizer that"));
  const auto verdict = VerifyDataset(env_, prefix);
  EXPECT_EQ(verdict.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(verdict.status().message()), HasSubstr("d/tokenizer.model is not the tokenizer that"));
}

}  // namespace
}  // namespace strata
