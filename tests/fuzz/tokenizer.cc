#include <algorithm>
#include <string>

#include "core/base/check.h"
#include "core/base/env.h"
#include "launch/tokenizer/tokenizer.h"
#include "tests/fuzz/memory_env.h"
#include "tests/fuzz/targets.h"

namespace strata::fuzz {
namespace {

constexpr char kText[] = "It is a truth\n\n universally  acknowledged: 1813 \xe2\x96\x81 \xc3\xa9 \xff\x80.";

std::string RoundTrip(const Tokenizer& tokenizer, std::string_view text) {
  const absl::StatusOr<std::vector<int32_t>> ids = tokenizer.Encode(text);
  STRATA_CHECK(ids.ok() || absl::IsResourceExhausted(ids.status()));
  if (!ids.ok()) return "";
  for (const int32_t id : *ids) STRATA_CHECK(id >= 0 && id < tokenizer.vocab_size());
  return tokenizer.Decode(*ids, SpecialText::kWrite);
}

}  // namespace

void TokenizerModel(std::string_view input) {
  MemoryEnv env({{"t.model", std::string(input)}});
  const absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Load(env, "t.model");
  if (!tokenizer.ok()) return;
  STRATA_CHECK(tokenizer->eos_id() < tokenizer->vocab_size());
  RoundTrip(*tokenizer, kText);
  RoundTrip(*tokenizer, "");
}

void TokenizerJsonFile(std::string_view input) {
  const size_t nul = std::min(input.find('\0'), input.size());
  MemoryEnv env({{"t.json", std::string(input.substr(0, nul))}});
  const absl::StatusOr<Tokenizer> tokenizer = Tokenizer::Load(env, "t.json");
  if (!tokenizer.ok()) return;
  STRATA_CHECK(tokenizer->eos_id() < tokenizer->vocab_size());
  RoundTrip(*tokenizer, kText);
  RoundTrip(*tokenizer, input.substr(std::min(nul + 1, input.size())));
}

void TokenizerText(std::string_view input) {
  static const absl::StatusOr<Tokenizer> tokenizer =
      Tokenizer::Load(Env::Posix(), STRATA_SOURCE_DIR "/tests/fuzz/corpus/tokenizer_model/trained");
  STRATA_CHECK(tokenizer.ok());
  STRATA_CHECK(RoundTrip(*tokenizer, input) == input);
}

}  // namespace strata::fuzz
