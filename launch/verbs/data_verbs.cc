// data build, inspect, verify and baselines.

#include <cstdio>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "core/base/status.h"
#include "launch/data/baselines.h"
#include "launch/data/build.h"
#include "launch/data/indexed_dataset.h"
#include "launch/data/inspect.h"
#include "launch/tokenizer/tokenizer.h"
#include "launch/verbs/verbs.h"

namespace strata {
namespace {

absl::StatusOr<std::vector<int32_t>> AllTokens(const std::string& prefix) {
  ASSIGN_OR_RETURN(const IndexedDataset dataset, IndexedDataset::Open(Env::Posix(), prefix));
  std::vector<int32_t> tokens(dataset.num_tokens());
  RETURN_IF_ERROR(dataset.Read(0, tokens));
  return tokens;
}

}  // namespace

absl::Status RunDataBuild(const DataBuildOptions& o) {
  ASSIGN_OR_RETURN(const BuildReport r, BuildDataset(Env::Posix(), {.inputs = o.text,
                                                                    .jsonl = o.jsonl,
                                                                    .field = o.field,
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

absl::Status RunDataInspect(const DataInspectOptions& o) {
  Env& env = Env::Posix();
  const std::vector<std::string> prefixes = DatasetsAt(env, o.path);
  if (o.begin < o.end) {
    if (prefixes.size() > 1) {
      return absl::InvalidArgumentError(
          absl::StrFormat("--documents: of which one? Name %s", absl::StrJoin(prefixes, " or ")));
    }
    const std::string tokenizer = o.tokenizer.empty() ? TokenizerBeside(env, prefixes[0]) : o.tokenizer;
    ASSIGN_OR_RETURN(const std::string text, DocumentTexts(env, prefixes[0], tokenizer, o.begin, o.end,
                                                           o.pieces ? ShowAs::kPieces : ShowAs::kText));
    std::fwrite(text.data(), 1, text.size(), stdout);  // a document may hold any bytes
    return absl::OkStatus();
  }
  for (const std::string& prefix : prefixes) {
    ASSIGN_OR_RETURN(const std::string text, DescribeDataset(env, prefix));
    std::fputs(text.c_str(), stdout);
  }
  return absl::OkStatus();
}

absl::Status RunDataVerify(const DataVerifyOptions& o) {
  std::vector<std::string> damage;
  for (const std::string& prefix : DatasetsAt(Env::Posix(), o.path)) {
    const absl::StatusOr<std::string> text = VerifyDataset(Env::Posix(), prefix);
    if (text.ok()) {
      std::fputs(text->c_str(), stdout);
    } else if (absl::IsDataLoss(text.status())) {
      damage.emplace_back(text.status().message());
    } else {
      return text.status();
    }
  }
  return damage.empty() ? absl::OkStatus() : absl::DataLossError(absl::StrJoin(damage, "\n"));
}

absl::Status RunDataBaselines(const DataBaselinesOptions& o) {
  const std::string path = TokenizerIn(Env::Posix(), o.data);
  ASSIGN_OR_RETURN(const Tokenizer tokenizer, Tokenizer::Load(Env::Posix(), path));
  ASSIGN_OR_RETURN(const std::vector<int32_t> train, AllTokens(o.data + "/train"));
  ASSIGN_OR_RETURN(const std::vector<int32_t> valid, AllTokens(o.data + "/valid"));
  for (const std::vector<int32_t>* tokens : {&train, &valid}) {
    for (int32_t t : *tokens) {
      if (t < 0 || t >= tokenizer.vocab_size()) {
        return absl::InvalidArgumentError(
            absl::StrFormat("token %d is outside the vocabulary of %s (%d pieces)", t, path, tokenizer.vocab_size()));
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

}  // namespace strata
