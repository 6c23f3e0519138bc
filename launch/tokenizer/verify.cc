#include "launch/tokenizer/verify.h"

#include <algorithm>
#include <chrono>
#include <limits>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "core/base/status.h"
#include "launch/tokenizer/json_value.h"
#include "launch/tokenizer/pieces.h"

namespace strata {
namespace {

constexpr int kMaxDepth = 8;
constexpr size_t kMaxShown = 5;  // differences

int64_t BytesWithoutPiece(const Tokenizer& tokenizer) {
  int64_t missing = 0;
  for (int byte = 0; byte < 256; ++byte) {
    const std::string text(1, static_cast<char>(byte));
    const absl::StatusOr<std::vector<int32_t>> ids = tokenizer.Encode(text);
    if (!ids.ok() || tokenizer.Decode(*ids, SpecialText::kWrite) != text) ++missing;
  }
  return missing;
}

std::string Named(const Tokenizer& tokenizer, int32_t id) {
  return absl::StrFormat("%d %s", id, Quoted(tokenizer.Decode({&id, 1}, SpecialText::kWrite)));
}

// Where two sequences first differ.
template <class T>
size_t FirstDifference(const T& a, const T& b) {
  return static_cast<size_t>(std::ranges::mismatch(a, b).in1 - a.begin());
}

std::string Difference(const Tokenizer& tokenizer, const std::vector<int32_t>& got, const std::vector<int32_t>& want) {
  const size_t at = FirstDifference(got, want);
  const auto shown = [&](const std::vector<int32_t>& ids) {
    return at < ids.size() ? Named(tokenizer, ids[at]) : "the end";
  };
  return absl::StrFormat("token %d is %s, expected %s", at, shown(got), shown(want));
}

}  // namespace

std::string DescribeTokenizer(const Tokenizer& tokenizer) {
  std::string text = absl::StrFormat("%s of %d pieces, EOS %s\n", tokenizer.file_name(), tokenizer.vocab_size(),
                                     tokenizer.eos_id() < 0 ? "not known" : Named(tokenizer, tokenizer.eos_id()));
  const absl::StatusOr<std::vector<int32_t>> before = tokenizer.EncodePrompt("");
  for (const int32_t id : before.ok() ? *before : std::vector<int32_t>{}) {
    text += absl::StrFormat("before a text: %s\n", Named(tokenizer, id));
  }
  const int64_t missing = BytesWithoutPiece(tokenizer);
  text += missing == 0 ? "every byte has a piece\n" : absl::StrFormat("%d of 256 bytes have no piece\n", missing);
  return text;
}

absl::StatusOr<std::string> VerifyRoundTrip(const Tokenizer& tokenizer, const std::string& name,
                                            std::string_view text) {
  const auto start = std::chrono::steady_clock::now();
  ASSIGN_OR_RETURN(const std::vector<int32_t> ids, tokenizer.Encode(text));
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  const std::string back = tokenizer.Decode(ids, SpecialText::kWrite);
  std::string verdict = "comes back byte for byte";
  if (back != text) {
    const size_t at = FirstDifference(std::string_view(back), text);
    ASSIGN_OR_RETURN(const std::vector<int32_t> again, tokenizer.Encode(back));
    if (again != ids) {
      return absl::DataLossError(absl::StrFormat("%s: byte %d: %s comes back as %s", name, at,
                                                 Quoted(text.substr(at, 16)),
                                                 Quoted(std::string_view(back).substr(at, 16))));
    }
    verdict = absl::StrFormat("comes back normalized, first at byte %d", at);
  }
  const auto bytes = static_cast<double>(text.size());
  return absl::StrFormat("%s: %d bytes in %d tokens (%.2f bytes a token), %.1f MB/s, %s\n", name, text.size(),
                         ids.size(), ids.empty() ? 0 : bytes / static_cast<double>(ids.size()),
                         bytes / 1e6 / std::max(seconds.count(), 1e-9), verdict);
}

absl::StatusOr<std::string> VerifyReference(const Tokenizer& tokenizer, const std::string& name,
                                            std::string_view lines) {
  std::vector<std::string> differences;
  int64_t texts = 0, total = 0, line = 0, wrong = 0;
  for (size_t begin = 0; begin < lines.size();) {
    const size_t end = std::min(lines.find('\n', begin), lines.size());
    JsonDocument document(lines.substr(begin, end - begin), kMaxDepth);
    begin = end + 1;
    ++line;
    const JsonValue root = document.root();
    std::string text;
    std::vector<int32_t> want;
    if (document.ok()) text = root.Only({"text", "ids"})["text"].String();
    if (document.ok() && !root["ids"].is_array()) root["ids"].Refuse("an array of ids");
    for (const JsonValue& id : document.ok() ? root["ids"].Elements() : std::vector<JsonValue>{}) {
      want.push_back(static_cast<int32_t>(id.Int(0, std::numeric_limits<int32_t>::max())));
    }
    if (!document.ok()) return Annotate(document.status(), absl::StrFormat("%s:%d", name, line));
    ASSIGN_OR_RETURN(const std::vector<int32_t> got, tokenizer.Encode(text));
    ++texts;
    total += std::ssize(got);
    if (got == want) continue;
    if (++wrong <= static_cast<int64_t>(kMaxShown)) {
      differences.push_back(absl::StrFormat("%s:%d: %s", name, line, Difference(tokenizer, got, want)));
    }
  }
  if (wrong > static_cast<int64_t>(kMaxShown)) differences.push_back(absl::StrFormat("%d texts differ", wrong));
  if (wrong > 0) return absl::DataLossError(absl::StrJoin(differences, "\n"));
  return absl::StrFormat("%s: %d texts, %d ids, all as expected\n", name, texts, total);
}

}  // namespace strata
