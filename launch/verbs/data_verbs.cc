// data build, data baselines, tokenizer train, encode, decode.

#include <cstdio>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "launch/data/baselines.h"
#include "launch/data/build.h"
#include "launch/data/indexed_dataset.h"
#include "launch/tokenizer/tokenizer.h"
#include "launch/verbs/verbs.h"

namespace strata {
namespace {

absl::StatusOr<std::vector<int32_t>> AllTokens(const std::string& prefix) {
  ASSIGN_OR_RETURN(const IndexedDataset dataset, IndexedDataset::Open(Env::Posix(), prefix));
  std::vector<int32_t> tokens(dataset.num_tokens());
  dataset.Read(0, tokens);
  return tokens;
}

}  // namespace

absl::Status RunDataBuild(const DataBuildOptions& o) {
  ASSIGN_OR_RETURN(const BuildReport r, BuildDataset(Env::Posix(), {.inputs = o.text,
                                                                    .out = o.out,
                                                                    .vocab_size = static_cast<int>(o.vocab),
                                                                    .tokenizer = o.tokenizer,
                                                                    .valid_fraction = o.valid,
                                                                    .overwrite = o.force}));
  std::printf("tokenizer %s: %d pieces\n", r.tokenizer_path.c_str(), r.vocab_size);
  for (const auto& [name, prefix, split] :
       {std::tuple("training", &r.train_prefix, &r.train), std::tuple("validation", &r.valid_prefix, &r.valid)}) {
    if (prefix->empty()) continue;
    std::printf("%-10s %s: %lld tokens of %lld documents, %.2f characters a token\n", name, prefix->c_str(),
                static_cast<long long>(split->tokens), static_cast<long long>(split->documents),
                split->CharsPerToken());
  }
  return absl::OkStatus();
}

absl::Status RunDataBaselines(const DataBaselinesOptions& o) {
  ASSIGN_OR_RETURN(const Tokenizer tokenizer, Tokenizer::Load(Env::Posix(), o.data + "/tokenizer.model"));
  ASSIGN_OR_RETURN(const std::vector<int32_t> train, AllTokens(o.data + "/train"));
  ASSIGN_OR_RETURN(const std::vector<int32_t> valid, AllTokens(o.data + "/valid"));
  for (const std::vector<int32_t>* tokens : {&train, &valid}) {
    for (int32_t t : *tokens) {
      if (t < 0 || t >= tokenizer.vocab_size()) {
        return absl::InvalidArgumentError(absl::StrFormat("token %d is outside the vocabulary of %s (%d pieces)", t,
                                                          o.data + "/tokenizer.model", tokenizer.vocab_size()));
      }
    }
  }
  if (valid.size() < 2) return absl::InvalidArgumentError("the validation split has fewer than 2 tokens");
  const Baselines b = CountBaselines(train, valid, tokenizer.vocab_size());
  std::printf(
      "baselines on the validation split, nats a token:\n  ln(vocab) %.4f\n  unigram   %.4f\n  bigram    %.4f\n",
      b.uniform, b.unigram, b.bigram);
  return absl::OkStatus();
}

absl::Status RunTokenizerTrain(const TokenizerTrainOptions& o) {
  std::vector<std::string> texts;
  for (const std::string& path : o.text) {
    ASSIGN_OR_RETURN(texts.emplace_back(), ReadText(Env::Posix(), path));
  }
  const std::vector<std::string_view> views(texts.begin(), texts.end());
  ASSIGN_OR_RETURN(const Tokenizer tokenizer, Tokenizer::Train(views, static_cast<int>(o.vocab)));
  return tokenizer.Save(Env::Posix(), o.out);
}

absl::Status RunTokenizerEncode(const TokenizerEncodeOptions& o) {
  ASSIGN_OR_RETURN(const Tokenizer tokenizer, Tokenizer::Load(Env::Posix(), o.tokenizer));
  const char* separator = "";
  for (int32_t id : tokenizer.Encode(o.text)) {
    std::printf("%s%d", separator, id);
    separator = " ";
  }
  std::printf("\n");
  return absl::OkStatus();
}

absl::Status RunTokenizerDecode(const TokenizerDecodeOptions& o) {
  ASSIGN_OR_RETURN(const Tokenizer tokenizer, Tokenizer::Load(Env::Posix(), o.tokenizer));
  const std::vector<int32_t> ids(o.ids.begin(), o.ids.end());
  std::printf("%s\n", tokenizer.Decode(ids).c_str());
  return absl::OkStatus();
}

}  // namespace strata
