#include "launch/config/errors.h"

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "core/base/check.h"

namespace strata {
namespace {

// Of an item of a list, "data.train[1]", the list: what a command line sets.
std::string SetKey(std::string_view key) { return std::string(key.substr(0, key.find('['))); }

Provenance::Position PositionOf(const Provenance& provenance, const ConfigIssue& issue) {
  if (issue.line > 0) return {issue.line, issue.column};
  if (provenance.set.contains(SetKey(issue.key))) return {};
  const auto it = provenance.at.find(issue.key);
  return it == provenance.at.end() ? Provenance::Position{} : it->second;
}

std::string Format(const Provenance& provenance, const ConfigIssue& issue) {
  const Provenance::Position p = PositionOf(provenance, issue);
  std::string where = provenance.file;
  if (p.line > 0) {
    where = absl::StrFormat("%s:%d:%d", provenance.file, p.line, p.column);
  } else if (const auto it = provenance.set.find(SetKey(issue.key)); it != provenance.set.end()) {
    where = it->second;
  } else if (!issue.key.empty()) {
    where = absl::StrFormat("%s (%s is not set there)", provenance.file, issue.key);
  }
  return absl::StrFormat("error[%s]: %s\n  --> %s%s%s", CodeOf(issue.kind), issue.message, where,
                         issue.hint.empty() ? "" : "    ", issue.hint);
}

}  // namespace

std::string_view CodeOf(ConfigErrorKind kind) {
  for (const ErrorCode& row : kErrorCodes) {
    if (row.kind == kind) return row.code;
  }
  STRATA_CHECK(false && "every ConfigErrorKind has a row");
  return "";
}

std::string Provenance::Of(std::string_view key) const {
  if (const auto it = derived.find(key); it != derived.end()) return it->second;
  if (set.contains(key)) return "command line";
  if (const auto it = at.find(key); it != at.end()) return absl::StrFormat("%s:%d", file, it->second.line);
  return "default";
}

absl::Status ConfigError(const Provenance& provenance, std::span<const ConfigIssue> issues) {
  if (issues.empty()) return absl::OkStatus();
  std::vector<std::pair<std::pair<int, int>, std::string>> texts;
  for (const ConfigIssue& issue : issues) {
    const Provenance::Position p = PositionOf(provenance, issue);
    const int line = p.line > 0 ? p.line : std::numeric_limits<int>::max();  // not in the file: last
    texts.push_back({{line, p.column}, Format(provenance, issue)});
  }
  std::stable_sort(texts.begin(), texts.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  const auto append = [](std::string* out, const auto& text) { out->append(text.second); };
  return absl::InvalidArgumentError(absl::StrJoin(texts, "\n", append));
}

}  // namespace strata
