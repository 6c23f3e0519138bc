#include "launch/data/build.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "absl/strings/str_format.h"
#include "launch/data/baselines.h"
#include "launch/data/indexed_dataset.h"
#include "launch/tokenizer/tokenizer.h"
#include "tests/testing/temp_dir.h"

namespace strata {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string NovelPath() { return STRATA_SOURCE_DIR "/examples/data/pride-and-prejudice.txt"; }

std::vector<int32_t> AllTokens(const std::string& prefix) {
  const auto dataset = IndexedDataset::Open(Env::Posix(), prefix);
  EXPECT_TRUE(dataset.ok()) << dataset.status();
  std::vector<int32_t> tokens(dataset->num_tokens());
  EXPECT_TRUE(dataset->Read(0, tokens).ok());
  return tokens;
}

class BuildTest : public ::testing::Test {
 protected:
  std::string Put(const std::string& name, const std::string& text) {
    EXPECT_TRUE(WriteTextAtomically(env_, dir_.path(name), text).ok());
    return dir_.path(name);
  }
  BuildOptions Options(std::vector<std::string> inputs, int vocab_size) {
    return {.inputs = std::move(inputs), .out = dir_.path("out"), .vocab_size = vocab_size};
  }
  void ExpectError(const BuildOptions& options, absl::StatusCode code, const std::string& message) {
    const absl::Status status = BuildDataset(env_, options).status();
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
    EXPECT_FALSE(env_.Exists(options.out)) << "something was written";
  }

  Env& env_ = Env::Posix();
  TempDir dir_;
};

TEST_F(BuildTest, NovelIsSplitEncodedAndWhole) {
  const auto report = BuildDataset(env_, Options({NovelPath()}, 2048));
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_THAT(*env_.List(dir_.path("out")), ElementsAre("tokenizer.model", "train.bin", "train.idx", "train.sum",
                                                        "valid.bin", "valid.idx", "valid.sum"));
  const std::string novel = *ReadText(env_, NovelPath());
  EXPECT_EQ(report->vocab_size, 2048);
  EXPECT_EQ(report->train.bytes + report->valid.bytes, std::ssize(novel));
  EXPECT_NEAR(static_cast<double>(report->valid.bytes), 0.05 * static_cast<double>(novel.size()), 1000);
  EXPECT_EQ(report->train.chars, report->train.bytes);
  EXPECT_GT(report->train.CharsPerToken(), 3);

  const auto tokenizer = Tokenizer::Load(env_, report->tokenizer_path);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const auto train = AllTokens(report->train_prefix), valid = AllTokens(report->valid_prefix);
  EXPECT_EQ(std::ssize(train), report->train.tokens);
  EXPECT_EQ(std::ssize(valid), report->valid.tokens);
  EXPECT_EQ(train.back(), tokenizer->eos_id());
  EXPECT_EQ(valid.back(), tokenizer->eos_id());
  const std::string train_text = tokenizer->Decode(train);
  EXPECT_TRUE(train_text.ends_with("\n\n"));
  EXPECT_TRUE(train_text + tokenizer->Decode(valid) == novel);

  const Baselines nats = CountBaselines(train, valid, 2048);
  EXPECT_LT(nats.unigram, nats.uniform - 1);
  EXPECT_LT(nats.bigram, nats.unigram - 0.5);
}

TEST_F(BuildTest, EachFileIsADocumentAndASecondBuildIsTheSame) {
  std::string text;
  for (int i = 0; i < 400; ++i) text += absl::StrFormat("Paragraph %d of the text.\nIt has two lines.\n\n", i);
  const std::string a = Put("a.txt", text), b = Put("b.txt", text + "\u00e9nd");
  BuildOptions options = Options({a, b}, 320);
  options.valid_fraction = 0.25;
  const auto report = BuildDataset(env_, options);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->train.documents, 2);
  EXPECT_EQ(report->valid.documents, 2);
  EXPECT_EQ(report->valid.bytes, report->valid.chars + 1);
  const auto dataset = IndexedDataset::Open(env_, report->train_prefix);
  ASSERT_TRUE(dataset.ok()) << dataset.status();
  EXPECT_EQ(dataset->num_documents(), 2);
  EXPECT_EQ(dataset->token_bytes(), 2);
  const auto first = AllTokens(report->train_prefix);
  EXPECT_EQ(first[dataset->SequenceBegin(1) - 1], 1);  // EOS

  const absl::Status again = BuildDataset(env_, options).status();
  EXPECT_EQ(again.code(), absl::StatusCode::kAlreadyExists);
  options.overwrite = true;
  options.tokenizer = report->tokenizer_path;  // the one that will be replaced by itself
  const auto second = BuildDataset(env_, options);
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(AllTokens(second->train_prefix), first);
}

TEST_F(BuildTest, NoValidationLeavesNoOldValidationFiles) {
  BuildOptions options = Options({NovelPath()}, 400);
  ASSERT_TRUE(BuildDataset(env_, options).ok());
  options.overwrite = true;
  options.valid_fraction = 0;
  const auto report = BuildDataset(env_, options);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->valid_prefix, "");
  EXPECT_EQ(report->valid.tokens, 0);
  EXPECT_THAT(*env_.List(dir_.path("out")), ElementsAre("tokenizer.model", "train.bin", "train.idx", "train.sum"));
}

TEST_F(BuildTest, LinesOfJsonAreDocuments) {
  std::string a, b;
  std::vector<std::string> texts;
  for (int i = 0; i < 60; ++i) {
    texts.push_back(absl::StrFormat("Document %d,\nwith two lines.", i));
    (i < 25 ? a : b) += absl::StrFormat("{\"id\": %d, \"body\": \"Document %d,\\nwith two lines.\"}\n", i, i);
  }
  BuildOptions options = Options({}, 300);
  options.jsonl = {Put("a.jsonl", a), Put("b.jsonl", b)};
  options.field = "body";
  options.valid_fraction = 0.15;
  const auto report = BuildDataset(env_, options);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->valid.documents, 9);
  EXPECT_EQ(report->train.documents, 51);

  const auto tokenizer = Tokenizer::Load(env_, report->tokenizer_path);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const auto train = IndexedDataset::Open(env_, report->train_prefix);
  const auto valid = IndexedDataset::Open(env_, report->valid_prefix);
  ASSERT_TRUE(train.ok() && valid.ok());
  EXPECT_EQ(train->sums()->tokenizer, tokenizer->crc32c());
  int64_t next_train = 0, next_valid = 0;
  for (int i = 0; i < 60; ++i) {
    const bool is_valid = std::floor((i + 1) * 0.15) > std::floor(i * 0.15);
    EXPECT_EQ(IsValidation(i, 0.15), is_valid) << i;
    const IndexedDataset& split = is_valid ? *valid : *train;
    const int64_t document = is_valid ? next_valid++ : next_train++;
    std::vector<int32_t> ids(split.SequenceBegin(document + 1) - split.SequenceBegin(document));
    ASSERT_TRUE(split.Read(split.SequenceBegin(document), ids).ok());
    EXPECT_EQ(ids.back(), tokenizer->eos_id());
    EXPECT_EQ(tokenizer->Decode(ids), texts[i]);
  }
}

TEST_F(BuildTest, TextsAndJsonMix) {
  BuildOptions options = Options({Put("a.txt", "First words.\n\nLast words.\n")}, 290);
  options.jsonl = {Put("b.jsonl", "{\"text\":\"Other words.\"}\n{\"text\":\"\"}\n")};
  const auto report = BuildDataset(env_, options);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->train.documents, 3);  // an empty text is a document of its EOS
  EXPECT_EQ(report->valid.documents, 1);
}

TEST_F(BuildTest, MistakesInJsonWriteNothing) {
  const auto invalid = absl::StatusCode::kInvalidArgument;
  const std::string good = Put("good", "{\"text\":\"x\"}\n");
  BuildOptions options = Options({}, 300);
  options.jsonl = {good, Put("bad.jsonl", "{\"text\":\"x\"}\n{\"text\":7}\n")};
  ExpectError(options, invalid, "bad.jsonl:2: \"text\" is not a string");
  options.jsonl = {Put("empty.jsonl", "")};
  ExpectError(options, invalid, "empty.jsonl: no documents");
  options.jsonl = {good};
  ExpectError(options, invalid, "good: too few documents for a validation part of 0.05");
}

TEST_F(BuildTest, ErrorsWriteNothing) {
  const auto invalid = absl::StatusCode::kInvalidArgument;
  const std::string text = Put("text", "Some words here.\n\nAnd some more words.\n");
  ExpectError(Options({}, 400), invalid, "no input");
  ExpectError(Options({dir_.path("none.txt")}, 400), absl::StatusCode::kNotFound, "none.txt");
  ExpectError(Options({text, Put("empty", "")}, 400), invalid, "empty: the text is empty");
  ExpectError(Options({Put("blank", " \n\n\t\n")}, 400), invalid, "the text is empty");
  ExpectError(Options({text}, 5000), invalid, "Vocabulary size too high");
  ExpectError(Options({text}, 100), invalid, "Vocabulary size is smaller");
  ExpectError(Options({Put("line", "One line, no paragraphs.\n")}, 300), invalid, "no empty line");
  BuildOptions options = Options({text}, 280);
  options.valid_fraction = 1;
  ExpectError(options, invalid, "valid_fraction");
  options.valid_fraction = std::nan("");
  ExpectError(options, invalid, "valid_fraction");
  options.valid_fraction = 0.5;
  options.tokenizer = text;
  ExpectError(options, invalid, "not a SentencePiece model");
}

TEST(ValidationCutTest, NearestParagraph) {
  const std::string_view text = "aaaa\n\nbbbb\n\n\ncccc\ndddd\n\n";  // paragraphs begin at 6 and 13
  EXPECT_EQ(ValidationCut(text, 0), text.size());
  EXPECT_EQ(ValidationCut(text, 0.05), 13u);
  EXPECT_EQ(ValidationCut(text, 0.5), 13u);
  EXPECT_EQ(ValidationCut(text, 0.7), 6u);
  EXPECT_EQ(ValidationCut(text, 0.99), 6u);
  EXPECT_EQ(ValidationCut("a\r\n\r\nb", 0.1), 5u);
  EXPECT_EQ(ValidationCut("\n\nonly\none\n\n", 0.5), 12u);
  EXPECT_EQ(ValidationCut("", 0.5), 0u);
}

}  // namespace
}  // namespace strata
