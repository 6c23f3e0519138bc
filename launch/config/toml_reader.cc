#include "launch/config/toml_reader.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <toml++/toml.h>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "launch/config/nearest.h"
#include "launch/config/print_config.h"

namespace strata {
namespace {

constexpr int64_t kMaxDots = 1000;  // of a line: the parser and its tables recurse once for each dot of a key

constexpr std::string_view kTypeNames[] = {"nothing",    "a table",        "an array",  "a string",
                                           "an integer", "a float",        "a boolean", "a date",
                                           "a time",     "a date and time"};  // by toml::node_type

std::string_view TypeName(const toml::node& node) { return kTypeNames[static_cast<size_t>(node.type())]; }

std::string Quoted(std::string_view text) { return absl::StrFormat("\"%s\"", text); }

Provenance::Position PositionOf(const toml::source_region& region) {
  return {static_cast<int>(region.begin.line), static_cast<int>(region.begin.column)};
}

std::optional<double> Number(const toml::node& node) {  // an integer will do for a float
  if (const toml::value<int64_t>* integer = node.as_integer()) return static_cast<double>(integer->get());
  if (const toml::value<double>* real = node.as_floating_point()) return real->get();
  return std::nullopt;
}

// Reads one value into one field, or reports that it does not fit.
class FieldReader {
 public:
  FieldReader(std::string key, const toml::node& node, ConfigChecks& checks)
      : key_(std::move(key)), node_(node), checks_(checks) {}

  void operator()(bool* value) {
    if (const auto* boolean = node_.as_boolean()) {
      *value = boolean->get();
    } else {
      WrongType(node_, "true or false");
    }
  }
  void operator()(int64_t* value) {
    if (const auto* integer = node_.as_integer()) {
      *value = integer->get();
      return;
    }
    const auto* real = node_.as_floating_point();
    const bool integral = real != nullptr && std::abs(real->get()) < 1e15 && real->get() == std::floor(real->get());
    WrongType(node_, "an integer", integral ? absl::StrFormat("did you mean %.0f?", real->get()) : "");
  }
  void operator()(double* value) {
    if (const std::optional<double> number = Number(node_)) {
      *value = *number;
    } else {
      WrongType(node_, "a number");
    }
  }
  void operator()(std::string* value) {
    if (const auto* text = node_.as_string()) {
      *value = text->get();
    } else {
      WrongType(node_, "a string");
    }
  }
  void operator()(ChoiceRef choice) {
    const auto* text = node_.as_string();
    if (text == nullptr) return WrongType(node_, "a string");
    for (size_t i = 0; i < choice.names.size(); ++i) {
      if (choice.names[i] != text->get()) continue;
      *choice.value = static_cast<uint8_t>(i);
      return;
    }
    NotAChoice(text->get(), {choice.names.begin(), choice.names.end()});
  }
  void operator()(std::vector<double>* list) {
    ReadList(list, "numbers", "a number", [](const toml::node& item) { return Number(item); });
  }
  void operator()(std::vector<std::string>* list) {
    ReadList(list, "strings", "a string", [](const toml::node& item) { return item.value_exact<std::string>(); });
  }

 private:
  void WrongType(const toml::node& node, std::string_view expected, std::string hint = "") {
    const Provenance::Position p = PositionOf(node.source());
    checks_.Add({ConfigErrorKind::kWrongType, key_,
                 absl::StrFormat("%s: expected %s, found %s", key_, expected, TypeName(node)), std::move(hint), p.line,
                 p.column});
  }
  void NotAChoice(std::string_view text, const std::vector<std::string>& names) {
    const auto quote = [](std::string* out, const std::string& name) { out->append(Quoted(name)); };
    const std::string nearest = NearestName(text, names);
    checks_.Add({ConfigErrorKind::kNotAChoice, key_,
                 absl::StrFormat("%s = %s: must be %s%s", key_, Quoted(text), names.size() > 1 ? "one of " : "",
                                 absl::StrJoin(names, ", ", quote)),
                 nearest.empty() ? "" : absl::StrFormat("did you mean %s?", Quoted(nearest))});
  }
  template <class T, class ReadItem>
  void ReadList(std::vector<T>* list, std::string_view plural, std::string_view singular, ReadItem read_item) {
    const toml::array* array = node_.as_array();
    if (array == nullptr) return WrongType(node_, absl::StrFormat("an array of %s", plural));
    std::vector<T> items;
    for (const toml::node& node : *array) {
      if (auto item = read_item(node)) {
        items.push_back(*std::move(item));
      } else {
        WrongType(node, singular);
      }
    }
    if (items.size() == array->size()) *list = std::move(items);
  }

  std::string key_;
  const toml::node& node_;
  ConfigChecks& checks_;
};

bool IsBareKey(std::string_view text) {
  const auto bare = [](unsigned char c) { return std::isalnum(c) != 0 || c == '_' || c == '-'; };
  return !text.empty() && std::all_of(text.begin(), text.end(), bare);
}

// Whether `key` names a field of text: its value needs no quotes on a command line.
bool TakesBareText(std::span<const ConfigSection> sections, std::string_view key) {
  for (const ConfigSection& section : sections) {
    for (const ConfigField& field : section.fields) {
      if (absl::StrFormat("%s.%s", section.name, field.name) != key) continue;
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
              absl::StrFormat("%s: expected a section, found %s", key.str(), TypeName(node)),
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
      provenance_.at[full] = PositionOf(node.source());
      std::visit(FieldReader(full, node, checks_), field->value);
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
    const Provenance::Position p = PositionOf(region);
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
    const Provenance::Position p = PositionOf(error.source());
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
  if (TakesBareText(sections, key) && !value.starts_with('"') && !value.starts_with('\'')) {
    value = TomlValue(&value);
  }
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
