#pragma once
// How a byte-level tokenizer cuts text into words, in which alone pieces are merged: steps, each of which cuts what the
// one before it made.

#include <cstdint>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "launch/tokenizer/regex.h"

namespace strata {

// What becomes of the matches of a split's pattern.
enum class SplitBehavior : uint8_t {
  kRemoved,             // they are left out
  kIsolated,            // each is a word
  kMergedWithPrevious,  // each is the end of the word before it
  kMergedWithNext,      // each is the beginning of the word behind it
  kContiguous,          // those in a row are one word
};

struct SplitStep {
  Regex pattern;
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;  // what does not match is what the behavior is about
};
struct PrefixSpaceStep {};  // a space before what does not begin with one

// The pattern of GPT-2, which ByteLevel cuts with.
extern const char kGpt2Pattern[];

class PreTokenizer {
 public:
  void Add(SplitStep step) { steps_.emplace_back(std::move(step)); }
  void Add(PrefixSpaceStep step) { steps_.emplace_back(step); }
  size_t num_steps() const { return steps_.size(); }

  // Hands the words of `text` (whole UTF-8 characters) to `word` one by one, in order; none is empty. Thread-safe, with a
  // scratch for each thread. ResourceExhausted: a pattern went over its limits.
  absl::Status Cut(std::string_view text, RegexScratch& scratch, absl::FunctionRef<void(std::string_view)> word) const {
    return CutFrom(0, text, scratch, word);
  }

 private:
  absl::Status CutFrom(size_t step, std::string_view text, RegexScratch& scratch,
                       absl::FunctionRef<void(std::string_view)> word) const;
  absl::Status Split(const SplitStep& split, size_t step, std::string_view text, RegexScratch& scratch,
                     absl::FunctionRef<void(std::string_view)> word) const;

  std::vector<std::variant<SplitStep, PrefixSpaceStep>> steps_;
};

}  // namespace strata
