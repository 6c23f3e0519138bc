#include "launch/config/toml_reader.h"

#include <algorithm>
#include <cctype>
#include <string>
#include <utility>
#include <vector>

#include <toml++/toml.h>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "launch/config/nearest.h"
#include "launch/config/print_config.h"
#include "launch/config/toml_field.h"

namespace strata {
namespace {

constexpr int64_t kMaxDots = 1000;  // of a line: the parser and its tables recurse once for each dot of a key

bool IsBareKey(std::string_view text) {
  const auto bare = [](unsigned char c) { return std::isalnum(c) != 0 || c == '_' || c == '-'; };
  return !text.empty() && std::all_of(text.begin(), text.end(), bare);
}

// Whether `value` is text for `key` as it is: it needs no quotes on a command line.
bool IsBareText(std::span<const ConfigSection> sections, std::string_view key, const std::string& value) {
  if (value.starts_with('"') || value.starts_with('\'')) return false;
  for (const ConfigSection& section : sections) {
    for (const ConfigField& field : section.fields) {
      if (absl::StrFormat("%s.%s", section.name, field.name) != key) continue;
      if (std::holds_alternative<std::vector<WeightedPath>*>(field.value)) return !value.starts_with('[');
      return std::holds_alternative<std::string*>(field.value) || std::holds_alternative<ChoiceRef>(field.value);
    }
  }
  return false;
}

// The number of the first line with more dots than that, from 1; 0 if there is none.
int LineWithTooManyDots(std::string_view text) {
  int line = 1;
  int64_t dots = 0;
  for (const char c : text) {
    if (c == '\n') {
      ++line;
      dots = 0;
    }
    if (c == '.' && ++dots > kMaxDots) return line;
  }
  return 0;
}

class TomlReader {
 public:
  TomlReader(std::span<const ConfigSection> sections, Provenance& provenance, ConfigChecks& checks)
      : sections_(sections), provenance_(provenance), checks_(checks) {}

  void ReadDocument(const toml::table& root) {
    for (auto&& [key, node] : root) {
      const ConfigSection* section = FindSection(key.str());
      if (section == nullptr) {
        UnknownSection(key, node);
      } else if (const toml::table* table = node.as_table()) {
        ReadSection(*section, *table);
      } else {
        AddAt(key.source(), ConfigErrorKind::kWrongType, std::string(key.str()),
              absl::StrFormat("%s: expected a section, found %s", key.str(), TomlTypeName(node)),
              absl::StrFormat("write [%s] above its keys", key.str()));
      }
    }
  }

 private:
  void ReadSection(const ConfigSection& section, const toml::table& table) {
    for (auto&& [key, node] : table) {
      const ConfigField* field = FindField(section, key.str());
      if (field == nullptr) {
        UnknownKey(section, key);
        continue;
      }
      const std::string full = absl::StrFormat("%s.%s", section.name, field->name);
      provenance_.at[full] = TomlPosition(node.source());
      ReadTomlField(full, node, field->value, provenance_, checks_);
    }
  }

  const ConfigSection* FindSection(std::string_view name) const {
    for (const ConfigSection& section : sections_) {
      if (section.name == name) return &section;
    }
    return nullptr;
  }
  static const ConfigField* FindField(const ConfigSection& section, std::string_view name) {
    for (const ConfigField& field : section.fields) {
      if (field.name == name) return &field;
    }
    return nullptr;
  }
  const ConfigSection* OnlySectionWith(std::string_view field) const {
    const ConfigSection* only = nullptr;
    for (const ConfigSection& section : sections_) {
      if (FindField(section, field) == nullptr) continue;
      if (only != nullptr) return nullptr;
      only = &section;
    }
    return only;
  }

  void UnknownSection(const toml::key& key, const toml::node& node) {
    if (!node.is_table() && !node.is_array_of_tables()) {
      const ConfigSection* home = OnlySectionWith(key.str());
      return AddAt(key.source(), ConfigErrorKind::kUnknownKey, std::string(key.str()),
                   absl::StrFormat("unknown key `%s` outside of any section", key.str()),
                   home == nullptr ? "" : absl::StrFormat("did you mean `%s` in [%s]?", key.str(), home->name));
    }
    std::vector<std::string> names;
    for (const ConfigSection& section : sections_) names.push_back(section.name);
    const std::string nearest = NearestName(key.str(), names);
    AddAt(key.source(), ConfigErrorKind::kUnknownSection, std::string(key.str()),
          absl::StrFormat("unknown section [%s]", key.str()),
          nearest.empty() ? absl::StrFormat("the sections are %s", absl::StrJoin(names, ", "))
                          : absl::StrFormat("did you mean [%s]?", nearest));
  }
  void UnknownKey(const ConfigSection& section, const toml::key& key) {
    std::vector<std::string> names;
    for (const ConfigField& field : section.fields) names.push_back(field.name);
    const std::string nearest = NearestName(key.str(), names);
    const ConfigSection* home = OnlySectionWith(key.str());
    std::string hint = absl::StrFormat("the keys of [%s] are %s", section.name, absl::StrJoin(names, ", "));
    if (home != nullptr) hint = absl::StrFormat("did you mean `%s` in [%s]?", key.str(), home->name);
    if (home == nullptr && !nearest.empty()) hint = absl::StrFormat("did you mean `%s`?", nearest);
    const std::vector<std::string>& others = section.keys_of_others;
    if (std::find(others.begin(), others.end(), key.str()) != others.end()) {
      hint = absl::StrFormat("%s has no such key", section.kind);
    }
    AddAt(key.source(), ConfigErrorKind::kUnknownKey, absl::StrFormat("%s.%s", section.name, key.str()),
          absl::StrFormat("unknown key `%s` in [%s]", key.str(), section.name), hint);
  }
  void AddAt(const toml::source_region& region, ConfigErrorKind kind, std::string key, std::string message,
             std::string hint) {
    const Provenance::Position p = TomlPosition(region);
    checks_.Add({kind, std::move(key), std::move(message), std::move(hint), p.line, p.column});
  }

  std::span<const ConfigSection> sections_;
  Provenance& provenance_;
  ConfigChecks& checks_;
};

}  // namespace

void ReadToml(std::string_view text, std::span<const ConfigSection> sections, Provenance& provenance,
              ConfigChecks& checks) {
  if (const int line = LineWithTooManyDots(text); line > 0) {
    return checks.Add(
        {ConfigErrorKind::kSyntax, "", absl::StrFormat("a line with more than %d dots", kMaxDots), "", line, 1});
  }
  toml::table root;
  try {  // the library's only way to report
    root = toml::parse(text);
  } catch (const toml::parse_error& error) {
    std::string description(error.description());  // "Error while parsing ...: cannot redefine existing integer 'lr'"
    const bool duplicate = description.find("redefine") != std::string::npos;
    if (const size_t colon = description.find(": "); colon != std::string::npos) description.erase(0, colon + 2);
    const Provenance::Position p = TomlPosition(error.source());
    checks.Add(
        {duplicate ? ConfigErrorKind::kDuplicate : ConfigErrorKind::kSyntax, "", description, "", p.line, p.column});
    return;
  }
  TomlReader(sections, provenance, checks).ReadDocument(root);
}

void ReadOverride(const std::string& argument, std::span<const ConfigSection> sections, Provenance& provenance,
                  ConfigChecks& checks) {
  const size_t equals = std::min(argument.find('='), argument.size());
  const std::string key = argument.substr(0, equals);
  const std::string at = key.empty() ? argument : key;
  provenance.set[at] = absl::StrFormat("--set %s", argument);
  const size_t dot = key.find('.');
  if (equals == argument.size() || !IsBareKey(key.substr(0, dot)) || dot == std::string::npos ||
      !IsBareKey(key.substr(dot + 1))) {
    return checks.Add({ConfigErrorKind::kSyntax, at, "expected SECTION.KEY=VALUE", "such as optim.lr=0.001"});
  }
  std::string value = argument.substr(equals + 1);
  if (IsBareText(sections, key, value)) value = TomlValue(&value);
  if (value.find_first_of("\r\n") != std::string::npos) {
    return checks.Add({ConfigErrorKind::kSyntax, at, absl::StrFormat("%s: the value is of more than one line", key)});
  }
  Provenance position;  // within the argument: of no use
  ConfigChecks found;
  ReadToml(absl::StrFormat("%s = %s", key, value), sections, position, found);
  for (ConfigIssue issue : found.issues()) {
    issue.key = key;
    issue.line = issue.column = 0;
    checks.Add(std::move(issue));
  }
}

}  // namespace strata
