// TranslatePattern: one pass over the pattern, which copies what it knows and refuses the rest.

#include <algorithm>
#include <cctype>
#include <iterator>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "launch/tokenizer/regex.h"
#include "launch/tokenizer/utf8.h"

namespace strata {
namespace {

struct Escape {
  char letter;
  const char* outside;   // of a class
  const char* in_class;  // nullptr: cannot be said there
};
// Oniguruma's meanings, in UTF-8: of Unicode, not of ASCII.
constexpr Escape kEscapes[] = {
    {'s', "\\p{White_Space}", "\\p{White_Space}"},
    {'S', "\\P{White_Space}", "\\P{White_Space}"},
    {'d', "\\p{Nd}", "\\p{Nd}"},
    {'D', "\\P{Nd}", "\\P{Nd}"},
    {'w', "[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}]", "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"},
    {'W', "[^\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}]", nullptr},
    {'A', "\\A", nullptr},
    {'z', "\\z", nullptr},
    {'r', "\\r", "\\r"},
    {'n', "\\n", "\\n"},
    {'t', "\\t", "\\t"},
    {'f', "\\f", "\\f"},
    {'v', "\\x{b}", "\\x{b}"},
    {'a', "\\a", "\\a"},
    {'e', "\\e", "\\e"},
};
// Properties that PCRE2 calls by the same name. Other names are scripts, which it must be told.
constexpr std::string_view kProperties[] = {"Alphabetic", "White_Space", "Lowercase",
                                            "Uppercase",  "Emoji",       "Extended_Pictographic"};
constexpr std::string_view kGroups[] = {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "(?i:"};

class Translator {
 public:
  explicit Translator(std::string_view pattern) : in_(pattern) {}

  absl::StatusOr<std::string> Run() {
    if (in_.starts_with("(?i)")) Copy(4);
    while (at_ < in_.size()) {
      switch (in_[at_]) {
        case '\\': RETURN_IF_ERROR(TakeEscape(Place::kOutside)); break;
        case '[': RETURN_IF_ERROR(TakeClass()); break;
        case '(': RETURN_IF_ERROR(TakeGroup()); break;
        case '{': RETURN_IF_ERROR(TakeCount()); break;
        default: Copy(std::max<size_t>(CharacterLength(in_.substr(at_)), 1));
      }
    }
    return out_;
  }

 private:
  enum class Place : uint8_t { kOutside, kClass };

  absl::Status Refuse(std::string_view what) const {
    return absl::InvalidArgumentError(absl::StrFormat("byte %d of \"%s\": %s", at_, in_, what));
  }
  void Copy(size_t bytes) {
    out_ += in_.substr(at_, bytes);
    at_ += bytes;
  }
  char Peek(size_t ahead) const { return at_ + ahead < in_.size() ? in_[at_ + ahead] : '\0'; }

  absl::Status TakeEscape(Place place) {
    const char letter = Peek(1);
    if (letter == 'p' || letter == 'P') return TakeProperty();
    if (letter == 'x' || letter == 'u') return TakeCode(letter);
    const auto* escape = std::ranges::find(kEscapes, letter, &Escape::letter);
    if (escape != std::end(kEscapes)) {
      const char* text = place == Place::kClass ? escape->in_class : escape->outside;
      if (text == nullptr) return Refuse(absl::StrFormat("\\%c has no place in a class", letter));
      out_ += text;
      at_ += 2;
      return absl::OkStatus();
    }
    if (std::ispunct(static_cast<unsigned char>(letter)) == 0 && letter != ' ') {
      return Refuse("an escape that is not supported");
    }
    Copy(2);
    return absl::OkStatus();
  }

  // \p{Name}: a general category, a property or a script.
  absl::Status TakeProperty() {
    const size_t end = in_.find('}', at_);
    if (Peek(2) != '{' || end == std::string_view::npos) return Refuse("expected \\p{Name}");
    const std::string_view name = in_.substr(at_ + 3, end - at_ - 3);
    const bool word =
        std::ranges::all_of(name, [](unsigned char c) { return std::isalpha(c) != 0 || c == '_' || c == '&'; });
    if (name.empty() || !word) return Refuse("a property that is not supported");
    const bool script = name.size() > 2 && std::ranges::find(kProperties, name) == std::end(kProperties);
    out_ += absl::StrFormat("\\%c{%s%s}", Peek(1), script ? "sc:" : "", name);
    at_ = end + 1;
    return absl::OkStatus();
  }

  // \xHH, \x{H...}, \uHHHH: a code point.
  absl::Status TakeCode(char letter) {
    const bool braces = letter == 'x' && Peek(2) == '{';
    const size_t begin = at_ + (braces ? 3 : 2);
    const size_t end = braces ? in_.find('}', begin) : begin + (letter == 'u' ? 4 : 2);
    if (end == std::string_view::npos || end > in_.size()) return Refuse("a code point that is cut short");
    const std::string_view digits = in_.substr(begin, end - begin);
    const bool hex = std::ranges::all_of(digits, [](unsigned char c) { return std::isxdigit(c) != 0; });
    // Oniguruma's \xHH is a byte, which means the same only in ASCII.
    if (digits.empty() || digits.size() > 6 || !hex || (!braces && letter == 'x' && digits[0] > '7')) {
      return Refuse("a code point that is not supported");
    }
    out_ += absl::StrFormat("\\x{%s}", digits);
    at_ = end + (braces ? 1 : 0);
    return absl::OkStatus();
  }

  absl::Status TakeClass() {
    Copy(1);
    if (Peek(0) == '^') Copy(1);
    if (Peek(0) == ']') return Refuse("an empty class");
    while (at_ < in_.size() && in_[at_] != ']') {
      if (in_[at_] == '[' || in_.substr(at_).starts_with("&&")) return Refuse("a class in a class is not supported");
      if (in_[at_] == '\\') {
        RETURN_IF_ERROR(TakeEscape(Place::kClass));
      } else {
        Copy(std::max<size_t>(CharacterLength(in_.substr(at_)), 1));
      }
    }
    if (at_ == in_.size()) return Refuse("a class without its end");
    Copy(1);
    return absl::OkStatus();
  }

  absl::Status TakeGroup() {
    if (Peek(1) != '?' && Peek(1) != '*') {
      Copy(1);
      return absl::OkStatus();
    }
    for (const std::string_view group : kGroups) {
      if (!in_.substr(at_).starts_with(group)) continue;
      Copy(group.size());
      return absl::OkStatus();
    }
    return Refuse("a group of a kind that is not supported");
  }

  // {n}, {n,} or {n,m}, which may be lazy; what would repeat that is refused: in the
  // other syntax it means possessive or lazy.
  absl::Status TakeCount() {
    size_t end = at_ + 1;
    while (end < in_.size() && (std::isdigit(static_cast<unsigned char>(in_[end])) != 0 || in_[end] == ',')) ++end;
    if (end == at_ + 1 || Peek(1) == ',' || end >= in_.size() || in_[end] != '}')
      return Refuse("expected {n} or {n,m}");
    const bool exact = in_.substr(at_, end - at_).find(',') == std::string_view::npos;
    Copy(end + 1 - at_);
    if (Peek(0) == '+' || Peek(0) == '*' || (exact && Peek(0) == '?')) {
      return Refuse("a repeated repetition is not supported");
    }
    return absl::OkStatus();
  }

  const std::string_view in_;
  size_t at_ = 0;
  std::string out_;
};

}  // namespace

absl::StatusOr<std::string> TranslatePattern(std::string_view pattern) { return Translator(pattern).Run(); }

}  // namespace strata
