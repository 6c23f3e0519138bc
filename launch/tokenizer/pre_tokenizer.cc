#include "launch/tokenizer/pre_tokenizer.h"

#include <string>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "launch/tokenizer/utf8.h"

namespace strata {

const char kGpt2Pattern[] = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

namespace {

// Whether two neighbours are one word, by whether each is a match.
bool Join(SplitBehavior behavior, bool first, bool second) {
  switch (behavior) {
    case SplitBehavior::kRemoved:
    case SplitBehavior::kIsolated: return false;
    case SplitBehavior::kMergedWithPrevious: return !first && second;
    case SplitBehavior::kMergedWithNext: return first && !second;
    case SplitBehavior::kContiguous: return first == second;
  }
  return false;
}

}  // namespace

absl::Status PreTokenizer::CutFrom(size_t step, std::string_view text, RegexScratch& scratch,
                                   absl::FunctionRef<void(std::string_view)> word) const {
  if (text.empty()) return absl::OkStatus();
  if (step == steps_.size()) {
    word(text);
    return absl::OkStatus();
  }
  if (const auto* split = std::get_if<SplitStep>(&steps_[step])) return Split(*split, step, text, scratch, word);
  if (text.starts_with(' ')) return CutFrom(step + 1, text, scratch, word);
  return CutFrom(step + 1, " " + std::string(text), scratch, word);
}

absl::Status PreTokenizer::Split(const SplitStep& split, size_t step, std::string_view text, RegexScratch& scratch,
                                 absl::FunctionRef<void(std::string_view)> word) const {
  struct Span {
    size_t begin = 0, end = 0;
    bool last_matches = false;  // the last of the neighbours that were joined to it
  } held;                       // what may still grow
  const auto flush = [&]() -> absl::Status {
    if (split.behavior == SplitBehavior::kRemoved && held.last_matches) return absl::OkStatus();
    return CutFrom(step + 1, text.substr(held.begin, held.end - held.begin), scratch, word);
  };
  const auto take = [&](size_t begin, size_t end, bool matches) -> absl::Status {
    matches = matches != split.invert;
    if (begin > 0 && Join(split.behavior, held.last_matches, matches)) {
      held.end = end;
    } else {
      RETURN_IF_ERROR(flush());
      held = {begin, end};
    }
    held.last_matches = matches;
    return absl::OkStatus();
  };
  size_t done = 0;
  for (size_t from = 0; from < text.size();) {
    const RegexMatch match = split.pattern.Find(text, from, scratch);
    if (match.kind == RegexMatch::Kind::kGaveUp) {
      return absl::ResourceExhaustedError(absl::StrFormat(
          "the pattern of the pre-tokenizer takes too many steps at byte %d of a text of %d bytes", from, text.size()));
    }
    if (match.kind == RegexMatch::Kind::kNone) break;
    if (match.begin > done) RETURN_IF_ERROR(take(done, match.begin, false));
    RETURN_IF_ERROR(take(match.begin, match.end, true));
    done = match.end;
    from = match.end > match.begin ? match.end : match.end + CharacterLength(text.substr(match.end));
    if (match.end == text.size()) break;
  }
  if (done < text.size()) RETURN_IF_ERROR(take(done, text.size(), false));
  return flush();
}

}  // namespace strata
