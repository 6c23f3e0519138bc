#include "launch/tokenizer/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/temp_dir.h"

namespace strata {
namespace {

using ::testing::HasSubstr;

std::string Novel() { return *ReadText(Env::Posix(), STRATA_SOURCE_DIR "/examples/data/pride-and-prejudice.txt"); }

absl::StatusOr<Tokenizer> TrainOn(std::string_view text, int vocab_size) {
  return Tokenizer::Train(std::span(&text, 1), vocab_size);
}

TEST(TokenizerTest, NovelSurvivesExactly) {
  const std::string novel = Novel();
  const auto tokenizer = TrainOn(novel, 2048);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(tokenizer->vocab_size(), 2048);
  const std::vector<int32_t> ids = *tokenizer->Encode(novel);
  EXPECT_TRUE(tokenizer->Decode(ids) == novel);
  EXPECT_LT(ids.size(), novel.size() / 3);
  EXPECT_EQ(std::ranges::count(ids, tokenizer->eos_id()), 0);
}

TEST(TokenizerTest, AnyBytesSurviveExactly) {
  const auto tokenizer = TrainOn(Novel(), 1024);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const std::string_view texts[] = {"",
                                    "  two  spaces\n\n\n three   \t tab\r\n ",
                                    "h\u00e9llo \u4f60\u597d \U0001F600",
                                    "a literal \u2581 here",
                                    "</s><unk><0x0A>",
                                    std::string_view("nul \0 byte", 10),
                                    "\xff\xc0\xaf lone \x80 cut \xe2\x96",
                                    "surrogate \xed\xa0\x80, overlong \xe0\x80\x80, beyond \xf4\x90\x80\x80"};
  for (const std::string_view text : texts) {
    const std::vector<int32_t> ids = *tokenizer->Encode(text);
    EXPECT_EQ(tokenizer->Decode(ids), text);
    for (const int32_t id : ids) EXPECT_GT(id, tokenizer->eos_id());
  }
}

TEST(TokenizerTest, NewlineIsOneToken) {
  const auto tokenizer = TrainOn(Novel(), 512);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(tokenizer->Encode("\n")->size(), 1u);
  EXPECT_EQ(tokenizer->Encode("\n\n\n")->size(), 3u);
}

TEST(TokenizerTest, ControlAndUnknownIdsDecodeToNothing) {
  const auto tokenizer = TrainOn(Novel(), 512);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const std::vector<int32_t> ids = {tokenizer->eos_id(), -1, 512, 1 << 30};
  EXPECT_EQ(tokenizer->Decode(ids), "");
}

TEST(TokenizerTest, TrainingIsReproducibleAndSaved) {
  const TempDir dir;
  const std::string novel = Novel();
  const auto first = TrainOn(novel, 700), second = TrainOn(novel, 700);
  ASSERT_TRUE(first.ok() && second.ok());
  Env& env = Env::Posix();
  ASSERT_TRUE(first->Save(env, dir.path("a.model")).ok());
  ASSERT_TRUE(second->Save(env, dir.path("b.model")).ok());
  EXPECT_TRUE(*ReadText(env, dir.path("a.model")) == *ReadText(env, dir.path("b.model")));

  const auto loaded = Tokenizer::Load(env, dir.path("a.model"));
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->vocab_size(), 700);
  EXPECT_EQ(loaded->eos_id(), first->eos_id());
  EXPECT_EQ(*loaded->Encode(novel), *first->Encode(novel));
}

TEST(TokenizerTest, TrainingIsSilent) {
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  ASSERT_TRUE(TrainOn(Novel(), 512).ok());
  EXPECT_EQ(::testing::internal::GetCapturedStdout(), "");
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
}

TEST(TokenizerTest, ErrorsSayWhatIsWrong) {
  EXPECT_THAT(std::string(TrainOn("", 512).status().message()), HasSubstr("no text"));
  EXPECT_EQ(TrainOn("", 512).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(TrainOn("a few words only", 5000).status().message()), HasSubstr("too high"));
  EXPECT_THAT(std::string(TrainOn("a few words only", 20).status().message()), HasSubstr("smaller than"));

  const TempDir dir;
  Env& env = Env::Posix();
  EXPECT_EQ(Tokenizer::Load(env, dir.path("none")).status().code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(WriteTextAtomically(env, dir.path("junk"), "this is no model").ok());
  const absl::Status junk = Tokenizer::Load(env, dir.path("junk")).status();
  EXPECT_EQ(junk.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(junk.message()), HasSubstr(dir.path("junk")));
  ASSERT_TRUE(WriteTextAtomically(env, dir.path("empty"), "").ok());
  EXPECT_FALSE(Tokenizer::Load(env, dir.path("empty")).ok());
}

}  // namespace
}  // namespace strata
