#pragma once
// Reading C++ as text, for the lint rules: lines, words, and a source without its comments and literals.

#include <cctype>
#include <string>
#include <string_view>
#include <vector>

namespace strata::lint {

inline bool Contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }
inline bool IsWordChar(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }

inline std::vector<std::string_view> Split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (!text.empty()) {
    const size_t end = text.find(separator);
    parts.push_back(text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  return parts;
}

// Position of `token` from `from` on, where neither end of it lies inside a longer word.
inline size_t FindToken(std::string_view text, std::string_view token, size_t from = 0) {
  for (size_t at = text.find(token, from); at != std::string_view::npos; at = text.find(token, at + 1)) {
    const size_t end = at + token.size();
    const bool inside_left = at > 0 && IsWordChar(text[at - 1]);
    const bool inside_right = end < text.size() && IsWordChar(token.back()) && IsWordChar(text[end]);
    if (!inside_left && !inside_right) return at;
  }
  return std::string_view::npos;
}

// The end of the comment or literal that starts at text[i], or i where none does.
inline size_t SkipOpaque(std::string_view text, size_t i) {
  const std::string_view rest = text.substr(i);
  const auto end_of = [&](std::string_view closing, size_t from) {
    const size_t at = text.find(closing, from);
    return at == std::string_view::npos ? text.size() : at + closing.size();
  };
  if (rest.starts_with("//")) return std::min(text.find('\n', i), text.size());
  if (rest.starts_with("/*")) return end_of("*/", i + 2);
  if (rest.starts_with("R\"")) {
    const std::string_view delimiter = rest.substr(2, rest.find('(') - 2);
    return end_of(")" + std::string(delimiter) + "\"", i);
  }
  const char quote = rest[0];
  if (quote != '"' && (quote != '\'' || (i > 0 && IsWordChar(text[i - 1])))) return i;  // 1'000 is a number
  for (++i; i < text.size() && text[i] != quote; ++i) i += text[i] == '\\' ? 1 : 0;
  return std::min(i + 1, text.size());
}

// `text` with comments and literals blanked; line numbers stay.
inline std::string CodeOnly(std::string_view text) {
  std::string code(text);
  for (size_t i = 0; i < text.size(); ++i) {
    const size_t end = SkipOpaque(text, i);
    if (end == i) continue;
    for (; i < end; ++i) code[i] = text[i] == '\n' ? '\n' : ' ';
    --i;
  }
  return code;
}

}  // namespace strata::lint
