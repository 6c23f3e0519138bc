#include "launch/tokenizer/added_tokens.h"

#include <utf8proc.h>

#include <algorithm>

#include "core/base/status.h"
#include "launch/tokenizer/utf8.h"

namespace strata {
namespace {

bool IsWordCharacter(char32_t c) {
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC: return true;
    default: return false;
  }
}

bool StandsAlone(std::string_view text, size_t begin, size_t end) {
  const bool word_before = begin > 0 && IsWordCharacter(CodePoint(text.substr(LastCharacter(text.substr(0, begin)))));
  const bool word_behind = end < text.size() && IsWordCharacter(CodePoint(text.substr(end)));
  return !word_before && !word_behind;
}

size_t StripLeft(std::string_view text, size_t begin, size_t limit) {
  while (begin > limit) {
    const size_t last = LastCharacter(text.substr(0, begin));
    if (last < limit || !IsWhiteSpace(CodePoint(text.substr(last)))) break;
    begin = last;
  }
  return begin;
}

size_t StripRight(std::string_view text, size_t end) {
  while (end < text.size() && IsWhiteSpace(CodePoint(text.substr(end)))) end += CharacterLength(text.substr(end));
  return end;
}

}  // namespace

void AddedTokenMatcher::Add(AddedToken token) {
  if (token.content.empty()) return;
  uint32_t node = 0;
  for (const char c : token.content) {
    const auto [child, is_new] =
        children_.try_emplace(uint64_t{node} << 8 | static_cast<uint8_t>(c), static_cast<uint32_t>(ends_.size()));
    node = child->second;
    if (is_new) ends_.push_back(-1);
  }
  first_[static_cast<uint8_t>(token.content[0])] = true;
  ends_[node] = static_cast<int32_t>(tokens_.size());
  tokens_.push_back(std::move(token));
}

std::optional<AddedTokenMatcher::Found> AddedTokenMatcher::Find(std::string_view text, size_t from) const {
  for (size_t begin = from; begin < text.size(); ++begin) {
    if (!first_[static_cast<uint8_t>(text[begin])]) continue;
    int32_t longest = -1;
    uint32_t node = 0;
    for (size_t at = begin; at < text.size(); ++at) {
      const auto child = children_.find(uint64_t{node} << 8 | static_cast<uint8_t>(text[at]));
      if (child == children_.end()) break;
      node = child->second;
      if (ends_[node] >= 0) longest = ends_[node];
    }
    if (longest < 0) continue;
    const AddedToken& token = tokens_[longest];
    const size_t end = begin + token.content.size();
    if (!token.single_word || StandsAlone(text, begin, end)) return Found{&token, begin, end};
    begin = end - 1;
  }
  return std::nullopt;
}

absl::Status AddedTokenMatcher::Split(
    std::string_view text, absl::FunctionRef<absl::Status(std::string_view part, const AddedToken* token)> part) const {
  size_t done = 0;
  while (done < text.size() && !tokens_.empty()) {
    std::optional<Found> found = Find(text, done);
    if (!found) break;
    if (found->token->lstrip) found->begin = StripLeft(text, found->begin, done);
    if (found->token->rstrip) found->end = StripRight(text, found->end);
    if (found->begin > done) RETURN_IF_ERROR(part(text.substr(done, found->begin - done), nullptr));
    RETURN_IF_ERROR(part(text.substr(found->begin, found->end - found->begin), found->token));
    done = found->end;
  }
  return done < text.size() ? part(text.substr(done), nullptr) : absl::OkStatus();
}

}  // namespace strata
