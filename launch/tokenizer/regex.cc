#include "launch/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "absl/strings/str_format.h"
#include "core/base/check.h"
#include "core/base/status.h"

namespace strata {
namespace {

constexpr size_t kMaxPatternBytes = 1 << 16;
constexpr uint32_t kMaxParentheses = 64;
constexpr uint32_t kMaxSteps = 1'000'000;  // of one match; those of the known patterns take a few for each character
constexpr uint32_t kMaxHeapKiB = 64 << 10;
constexpr size_t kStackBytes = 32 << 10, kMaxStackBytes = 4 << 20;  // of JIT code

std::string Message(int error) {
  PCRE2_UCHAR text[256] = {};
  pcre2_get_error_message(error, text, sizeof(text));
  return reinterpret_cast<const char*>(text);
}

}  // namespace

RegexScratch::RegexScratch()
    : data_(pcre2_match_data_create(1, nullptr)),
      context_(pcre2_match_context_create(nullptr)),
      stack_(pcre2_jit_stack_create(kStackBytes, kMaxStackBytes, nullptr)) {
  STRATA_CHECK(data_ != nullptr && context_ != nullptr);
  pcre2_set_match_limit(context_, kMaxSteps);
  pcre2_set_depth_limit(context_, kMaxSteps);
  pcre2_set_heap_limit(context_, kMaxHeapKiB);
  if (stack_ != nullptr) pcre2_jit_stack_assign(context_, nullptr, stack_);
}

RegexScratch::~RegexScratch() {
  pcre2_match_data_free(data_);
  pcre2_match_context_free(context_);
  pcre2_jit_stack_free(stack_);
}

void Regex::Free::operator()(pcre2_real_code_8* code) const { pcre2_code_free(code); }

absl::StatusOr<Regex> Regex::Make(std::string_view pattern, uint32_t options) {
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  STRATA_CHECK(context != nullptr);
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(context, kMaxParentheses);
  int error = 0;
  size_t at = 0;
  Regex regex;
  regex.code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), options | PCRE2_UTF,
                                  &error, &at, context));
  pcre2_compile_context_free(context);
  if (regex.code_ == nullptr) {
    return absl::InvalidArgumentError(absl::StrFormat("byte %d of \"%s\": %s", at, pattern, Message(error)));
  }
  pcre2_jit_compile(regex.code_.get(), PCRE2_JIT_COMPLETE);  // without it, matching is slower and the same
  return regex;
}

absl::StatusOr<Regex> Regex::Compile(std::string_view pattern) {
  if (pattern.size() > kMaxPatternBytes) {
    return absl::InvalidArgumentError(
        absl::StrFormat("a pattern of %d bytes; the limit is %d", pattern.size(), kMaxPatternBytes));
  }
  ASSIGN_OR_RETURN(const std::string translated, TranslatePattern(pattern));
  return Make(translated, PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C);
}

absl::StatusOr<Regex> Regex::Literal(std::string_view text) {
  if (text.empty() || text.size() > kMaxPatternBytes) {
    return absl::InvalidArgumentError(
        absl::StrFormat("a text of %d bytes; expected 1 to %d", text.size(), kMaxPatternBytes));
  }
  return Make(text, PCRE2_LITERAL);
}

RegexMatch Regex::Find(std::string_view text, size_t from, RegexScratch& scratch) const {
  const int found = pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                                PCRE2_NO_UTF_CHECK, scratch.data_, scratch.context_);
  if (found == PCRE2_ERROR_NOMATCH) return {};
  if (found < 0) return {.kind = RegexMatch::Kind::kGaveUp};
  const size_t* range = pcre2_get_ovector_pointer(scratch.data_);
  return {.kind = RegexMatch::Kind::kFound, .begin = range[0], .end = range[1]};
}

}  // namespace strata
