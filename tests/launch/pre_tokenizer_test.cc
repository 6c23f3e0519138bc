#include "launch/tokenizer/pre_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "launch/tokenizer/normalizer.h"

namespace strata {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> Cut(const PreTokenizer& pre, std::string_view text) {
  RegexScratch scratch;
  std::vector<std::string> words;
  EXPECT_TRUE(pre.Cut(text, scratch, [&](std::string_view word) { words.emplace_back(word); }).ok());
  return words;
}

std::vector<std::string> CutBy(std::string_view pattern, SplitBehavior behavior, bool invert, std::string_view text) {
  absl::StatusOr<Regex> regex = Regex::Compile(pattern);
  EXPECT_TRUE(regex.ok()) << regex.status();
  PreTokenizer pre;
  pre.Add(SplitStep{*std::move(regex), behavior, invert});
  return Cut(pre, text);
}

TEST(PreTokenizerTest, Behaviors) {
  const auto cut = [](SplitBehavior behavior, bool invert = false) {
    return CutBy("-", behavior, invert, "-the--end-");
  };
  EXPECT_THAT(cut(SplitBehavior::kRemoved), ElementsAre("the", "end"));
  EXPECT_THAT(cut(SplitBehavior::kIsolated), ElementsAre("-", "the", "-", "-", "end", "-"));
  EXPECT_THAT(cut(SplitBehavior::kMergedWithPrevious), ElementsAre("-", "the-", "-", "end-"));
  EXPECT_THAT(cut(SplitBehavior::kMergedWithNext), ElementsAre("-the", "-", "-end", "-"));
  EXPECT_THAT(cut(SplitBehavior::kContiguous), ElementsAre("-", "the", "--", "end", "-"));
  EXPECT_THAT(cut(SplitBehavior::kRemoved, true), ElementsAre("-", "-", "-", "-"));
  EXPECT_THAT(cut(SplitBehavior::kContiguous, true), ElementsAre("-", "the", "--", "end", "-"));
}

TEST(PreTokenizerTest, EmptyMatchesCut) {
  EXPECT_THAT(CutBy("x*", SplitBehavior::kIsolated, false, "a\u00e9xxb"), ElementsAre("a", "\u00e9", "xx", "b"));
  EXPECT_THAT(CutBy("(?=b)", SplitBehavior::kIsolated, false, "abab"), ElementsAre("a", "ba", "b"));
}

TEST(PreTokenizerTest, Gpt2) {
  const auto cut = [](std::string_view text) { return CutBy(kGpt2Pattern, SplitBehavior::kIsolated, false, text); };
  EXPECT_THAT(cut("I'll pay $12 for  it's\n\n"),
              ElementsAre("I", "'ll", " pay", " $", "12", " for", " ", " it", "'s", "\n\n"));
  EXPECT_THAT(cut(""), ElementsAre());
  EXPECT_THAT(cut("a\u0085\u0085b"), ElementsAre("a", "\u0085", "\u0085", "b"));  // white space to Unicode
}

TEST(PreTokenizerTest, StepsCutWhatTheyGet) {
  PreTokenizer pre;
  pre.Add(SplitStep{*Regex::Compile("\\p{N}"), SplitBehavior::kIsolated, false});
  pre.Add(PrefixSpaceStep{});
  pre.Add(SplitStep{*Regex::Literal(" "), SplitBehavior::kMergedWithNext, false});
  EXPECT_THAT(Cut(pre, "ab 12"), ElementsAre(" ab", " ", " 1", " 2"));
}

TEST(PreTokenizerTest, LongTextsWithoutWords) {
  for (const char* unit : {" ", "a", "\n", "\u4e00", "!"}) {
    std::string text;
    while (text.size() < 3 << 20) text += unit;
    EXPECT_EQ(CutBy(kGpt2Pattern, SplitBehavior::kIsolated, false, text).size(), 1u);
  }
}

TEST(PreTokenizerTest, RunawayPatternIsAnError) {
  PreTokenizer pre;
  pre.Add(SplitStep{*Regex::Compile("(?:a+)+$"), SplitBehavior::kIsolated, false});
  RegexScratch scratch;
  std::string text(61, 'a');
  text.back() = 'b';
  const absl::Status status = pre.Cut(text, scratch, [](std::string_view) {});
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("too many steps at byte 0 of a text of 61 bytes"));
}

TEST(RegexTest, Translation) {
  EXPECT_EQ(*TranslatePattern("\\s\\S[\\s\\d]\\w"),
            "\\p{White_Space}\\P{White_Space}[\\p{White_Space}\\p{Nd}][\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}]");
  EXPECT_EQ(*TranslatePattern("\\p{Lu}\\P{Han}\\p{Alphabetic}"), "\\p{Lu}\\P{sc:Han}\\p{Alphabetic}");
  EXPECT_EQ(*TranslatePattern("\\u0041\\x41\\x{1F600}"), "\\x{0041}\\x{41}\\x{1F600}");
  EXPECT_EQ(*TranslatePattern("(?i:'s)|a{1,3}?|(?<!b)\\.|[\\]\\-^]"), "(?i:'s)|a{1,3}?|(?<!b)\\.|[\\]\\-^]");
}

TEST(RegexTest, WhatWouldMeanAnotherThingIsRefused) {
  for (const char* pattern : {"\\b", "\\h", "\\1", "[a[b]]", "[a&&b]", "[]a]", "(?<n>a)", "a(?i)b", "(*FAIL)", "a{2}+",
                              "a{2}?", "a{,3}", "{", "\\x80", "\\p{^L}", "\\pL", "[\\W]", "[[:alpha:]]", "a\\"}) {
    EXPECT_EQ(Regex::Compile(pattern).status().code(), absl::StatusCode::kInvalidArgument) << pattern;
  }
  EXPECT_THAT(std::string(Regex::Compile("ab(?<n>c)").status().message()), HasSubstr("byte 2 of \"ab(?<n>c)\""));
  EXPECT_THAT(std::string(Regex::Compile("a(b").status().message()), HasSubstr("missing closing parenthesis"));
  EXPECT_FALSE(Regex::Compile("\\p{Klingon}").ok());
  EXPECT_FALSE(Regex::Compile(std::string(1 << 17, 'a')).ok());
}

TEST(NormalizerTest, Forms) {
  std::string storage;
  const std::string_view plain = "plain \u00e9";
  EXPECT_EQ(Normalize(NormalForm::kNfc, plain, &storage).data(), plain.data());  // at first sight
  EXPECT_EQ(Normalize(NormalForm::kNfc, "e\u0301\n\u1112\u1161\u11ab", &storage), "\u00e9\n\ud55c");
  EXPECT_EQ(Normalize(NormalForm::kNfd, "\u00e9\n\ud55c", &storage), "e\u0301\n\u1112\u1161\u11ab");
  EXPECT_EQ(Normalize(NormalForm::kNfkc, "\ufb01\u00b2e\u0301", &storage), "fi2\u00e9");
  EXPECT_EQ(Normalize(NormalForm::kNfkd, "\u00aa\u00e9", &storage), "ae\u0301");
  const std::string nul("e\u0301\0e\u0301", 7);
  EXPECT_EQ(Normalize(NormalForm::kNfc, nul, &storage), std::string("\u00e9\0\u00e9", 5));
}

}  // namespace
}  // namespace strata
