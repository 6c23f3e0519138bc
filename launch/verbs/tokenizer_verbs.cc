// tokenizer train, encode, decode, verify.

#include <cstdio>

#include "absl/strings/str_join.h"
#include "core/base/status.h"
#include "launch/tokenizer/pieces.h"
#include "launch/tokenizer/tokenizer.h"
#include "launch/tokenizer/verify.h"
#include "launch/verbs/verbs.h"

namespace strata {

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
  ASSIGN_OR_RETURN(const std::vector<int32_t> ids, o.bos ? tokenizer.EncodePrompt(o.text) : tokenizer.Encode(o.text));
  if (o.pieces) {
    std::fputs(PieceLines(tokenizer, ids).c_str(), stdout);
    return absl::OkStatus();
  }
  const char* separator = "";
  for (const int32_t id : ids) {
    std::printf("%s%d", separator, id);
    separator = " ";
  }
  std::printf("\n");
  return absl::OkStatus();
}

absl::Status RunTokenizerDecode(const TokenizerDecodeOptions& o) {
  ASSIGN_OR_RETURN(const Tokenizer tokenizer, Tokenizer::Load(Env::Posix(), o.tokenizer));
  const std::vector<int32_t> ids(o.ids.begin(), o.ids.end());
  const std::string text = tokenizer.Decode(ids, SpecialText::kWrite) + "\n";
  std::fwrite(text.data(), 1, text.size(), stdout);  // ids may stand for any bytes
  return absl::OkStatus();
}

absl::Status RunTokenizerVerify(const TokenizerVerifyOptions& o) {
  Env& env = Env::Posix();
  ASSIGN_OR_RETURN(const Tokenizer tokenizer, Tokenizer::Load(env, o.tokenizer));
  std::fputs(DescribeTokenizer(tokenizer).c_str(), stdout);
  std::vector<std::string> damage;
  const auto run = [&](const std::vector<std::string>& paths, auto verify) -> absl::Status {
    for (const std::string& path : paths) {
      ASSIGN_OR_RETURN(const std::string text, ReadUserFile(env, path));
      const absl::StatusOr<std::string> line = verify(tokenizer, path, text);
      if (line.ok()) {
        std::fputs(line->c_str(), stdout);
      } else if (absl::IsDataLoss(line.status())) {
        damage.emplace_back(line.status().message());
      } else {
        return line.status();
      }
    }
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(run(o.text, VerifyRoundTrip));
  RETURN_IF_ERROR(run(o.reference, VerifyReference));
  return damage.empty() ? absl::OkStatus() : absl::DataLossError(absl::StrJoin(damage, "\n"));
}

}  // namespace strata
