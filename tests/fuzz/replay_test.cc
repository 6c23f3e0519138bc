// Every input of the kept corpora through its target, and a hundred variations of each with bytes changed: the targets
// stay alive where no fuzzer is built. A finding ends the process.

#include <gtest/gtest.h>

#include <filesystem>
#include <set>

#include "core/base/env.h"
#include "core/base/philox.h"
#include "tests/fuzz/targets.h"

namespace strata::fuzz {
namespace {

constexpr int kVariations = 100;

std::string Corpus(std::string_view target) { return STRATA_SOURCE_DIR "/tests/fuzz/corpus/" + std::string(target); }

// A few bytes replaced, or the end cut off: a function of (text, n).
std::string Varied(std::string text, uint64_t n) {
  if (text.empty()) return text;
  const PhiloxBlock random = Philox(1, n, text.size());
  if (random[0] % 8 == 0) text.resize(random[1] % text.size());
  for (uint64_t i = 0; i < random[2] % 4 && !text.empty(); ++i) {
    const PhiloxBlock at = Philox(2, n, i);
    text[at[0] % text.size()] = static_cast<char>(at[1]);
  }
  return text;
}

class Replay : public ::testing::TestWithParam<Target> {};

TEST_P(Replay, Corpus) {
  const std::string folder = Corpus(GetParam().name);
  const absl::StatusOr<std::vector<std::string>> names = Env::Posix().List(folder);
  ASSERT_TRUE(names.ok()) << names.status();
  EXPECT_GE(names->size(), 2u);
  for (const std::string& name : *names) {
    SCOPED_TRACE(name);
    const absl::StatusOr<std::string> text = ReadText(Env::Posix(), folder + "/" + name);
    ASSERT_TRUE(text.ok()) << text.status();
    GetParam().run(*text);
    for (uint64_t n = 0; n < kVariations; ++n) GetParam().run(Varied(*text, n));
  }
}

INSTANTIATE_TEST_SUITE_P(All, Replay, ::testing::ValuesIn(kTargets),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(Fuzz, EveryCorpusHasItsTarget) {
  std::set<std::string> folders, targets;
  for (const auto& entry : std::filesystem::directory_iterator(Corpus(""))) {
    folders.insert(entry.path().filename().string());
  }
  for (const Target& target : kTargets) targets.emplace(target.name);
  EXPECT_EQ(folders, targets);
}

}  // namespace
}  // namespace strata::fuzz
