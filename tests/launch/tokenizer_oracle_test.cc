// Token for token what other programs make of the same text: GPT-2's, Llama 3's and Qwen 3's tokenizers, in JavaScript.
// They are npm packages, which `./dev setup` puts into a cache outside of the tree; without them these tests are skipped.

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"
#include "launch/tokenizer/pieces.h"
#include "launch/tokenizer/tokenizer.h"
#include "tests/launch/tokenizer_texts.h"
#include "tests/testing/temp_dir.h"

namespace strata {
namespace {

constexpr char kOracle[] = STRATA_SOURCE_DIR "/tests/launch/oracles/tokenizer.mjs";

constexpr std::string_view kBos = "<|begin_of_text|>";  // Llama 3's

// Where ./dev setup puts the packages: as in its function oracles().
std::string Packages() {
  const char* named = std::getenv("STRATA_TOKENIZER_ORACLES");
  if (named != nullptr) return named;
  const char* home = std::getenv("HOME");
  return std::string(home == nullptr ? "/tmp" : home) + "/.cache/strata/tokenizer-oracles";
}

class TokenizerOracle : public ::testing::TestWithParam<const char*> {
 protected:
  // What the other program says of `texts`.
  nlohmann::json Ask(const std::vector<std::string>& texts) {
    EXPECT_TRUE(WriteTextAtomically(Env::Posix(), dir_.path("texts.json"), nlohmann::json(texts).dump()).ok());
    const std::string log = dir_.path("log");
    const std::string command =
        absl::StrFormat("node '%s' '%s' %s '%s' > '%s' 2>&1", kOracle, Packages(), GetParam(), dir_.path(), log);
    EXPECT_EQ(std::system(command.c_str()), 0) << *ReadText(Env::Posix(), log);
    return nlohmann::json::parse(*ReadText(Env::Posix(), dir_.path("results.json")));
  }

  TempDir dir_;
};

std::string Where(const Tokenizer& tokenizer, const std::vector<int32_t>& got, const std::vector<int32_t>& want) {
  const size_t at = std::ranges::mismatch(got, want).in1 - got.begin();
  const auto rest = [&](std::span<const int32_t> ids) {
    return PieceLines(tokenizer, ids.subspan(at, std::min<size_t>(ids.size() - at, 5)));
  };
  return absl::StrFormat("token %d\n%sexpected\n%s", at, rest(got), rest(want));
}

TEST_P(TokenizerOracle, SaysTheSame) {
  if (!std::filesystem::exists(Packages() + "/node_modules/gpt-3-encoder/package.json")) {
    GTEST_SKIP() << "no packages in " << Packages() << ": ./dev setup installs them where node and npm are";
  }
  const std::vector<std::string> texts = TokenizerTexts();
  const nlohmann::json results = Ask(texts);
  const absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Load(Env::Posix(), dir_.path());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  ASSERT_EQ(results.size(), texts.size());
  size_t total = 0, seconds = 0;
  for (size_t i = 0; i < texts.size(); ++i) {
    SCOPED_TRACE(absl::StrFormat("text %d: %s", i, Quoted(std::string_view(texts[i]).substr(0, 400))));
    const auto want = results[i]["ids"].get<std::vector<int32_t>>();
    const std::vector<int32_t> got = *tokenizer->Encode(texts[i]);
    ASSERT_TRUE(got == want) << Where(*tokenizer, got, want);
    if (!texts[i].starts_with(kBos)) {  // where it does, the other has it twice
      EXPECT_EQ(*tokenizer->EncodePrompt(texts[i]), results[i]["prompt_ids"].get<std::vector<int32_t>>());
    }
    EXPECT_TRUE(tokenizer->Decode(got, SpecialText::kWrite) == results[i]["decoded"].get<std::string>());
    total += got.size();
    if (results[i]["second"].is_null()) continue;
    const auto second = results[i]["second"].get<std::vector<int32_t>>();
    ASSERT_TRUE(got == second) << "the second program: " << Where(*tokenizer, got, second);
    ++seconds;
  }
  EXPECT_GT(total, 180'000u);
  EXPECT_EQ(seconds > 100, std::string(GetParam()) == "gpt2");
  RecordProperty("tokens", static_cast<int>(total));
}

INSTANTIATE_TEST_SUITE_P(Kinds, TokenizerOracle, ::testing::Values("gpt2", "llama3", "qwen3"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace strata
