#pragma once
// The regular expressions of tokenizer.json, by PCRE2 with its JIT. They are written for Oniguruma (Ruby's syntax); what
// the two take alike passes, \s \S \d \D \w and scripts are put as Oniguruma means them, and what they take differently
// (nested classes, back references, named groups, options in mid-pattern, \b, \h, ...) is refused.
// Where they cannot agree: (?i:s) also takes U+017F, and properties are those of PCRE2's Unicode version.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

struct pcre2_real_code_8;
struct pcre2_real_match_data_8;
struct pcre2_real_match_context_8;
struct pcre2_real_jit_stack_8;

namespace strata {

// `pattern` in PCRE2's syntax. InvalidArgument: something in it would mean another thing, with its place.
absl::StatusOr<std::string> TranslatePattern(std::string_view pattern);

// What a match needs besides the expression; for one thread at a time.
class RegexScratch {
 public:
  RegexScratch();
  ~RegexScratch();
  RegexScratch(const RegexScratch&) = delete;
  RegexScratch& operator=(const RegexScratch&) = delete;

 private:
  friend class Regex;
  pcre2_real_match_data_8* data_;
  pcre2_real_match_context_8* context_;
  pcre2_real_jit_stack_8* stack_;
};

struct RegexMatch {
  enum class Kind : uint8_t { kFound, kNone, kGaveUp };  // kGaveUp: over the limits on steps and memory
  Kind kind = Kind::kNone;
  size_t begin = 0, end = 0;  // may be equal
};

// Immutable and thread-safe.
class Regex {
 public:
  // InvalidArgument: a pattern of over 64 KiB, or one that is wrong, or that TranslatePattern refuses.
  static absl::StatusOr<Regex> Compile(std::string_view pattern);
  static absl::StatusOr<Regex> Literal(std::string_view text);  // of itself

  // The first match of `text` (whole UTF-8 characters) at or behind byte `from`, which begins a character. What is before
  // `from` can be seen by look-behinds.
  RegexMatch Find(std::string_view text, size_t from, RegexScratch& scratch) const;

 private:
  struct Free {
    void operator()(pcre2_real_code_8* code) const;
  };
  static absl::StatusOr<Regex> Make(std::string_view pattern, uint32_t options);

  std::unique_ptr<pcre2_real_code_8, Free> code_;
};

}  // namespace strata
