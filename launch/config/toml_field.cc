#include "launch/config/toml_field.h"

#include <cmath>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "launch/config/nearest.h"

namespace strata {
namespace {

constexpr std::string_view kTypeNames[] = {"nothing",    "a table",        "an array",  "a string",
                                           "an integer", "a float",        "a boolean", "a date",
                                           "a time",     "a date and time"};  // by toml::node_type

std::string Quoted(std::string_view text) { return absl::StrFormat("\"%s\"", text); }

std::optional<double> Number(const toml::node& node) {  // an integer will do for a float
  if (const toml::value<int64_t>* integer = node.as_integer()) return static_cast<double>(integer->get());
  if (const toml::value<double>* real = node.as_floating_point()) return real->get();
  return std::nullopt;
}

// Reads one value into one field, or reports that it does not fit.
class FieldReader {
 public:
  FieldReader(std::string key, const toml::node& node, Provenance& provenance, ConfigChecks& checks)
      : key_(std::move(key)), node_(node), provenance_(provenance), checks_(checks) {}

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
  void operator()(std::vector<WeightedPath>* list) {
    if (const auto* text = node_.as_string()) {
      list->clear();
      if (!text->get().empty()) list->push_back({text->get()});
      return;
    }
    const toml::array* array = node_.as_array();
    if (array == nullptr) return WrongType(node_, "a path or an array of tables {path, weight}");
    std::vector<WeightedPath> items;
    bool good = true;
    for (const toml::node& node : *array) {
      const std::string key = absl::StrFormat("%s[%d]", key_, items.size());
      provenance_.at[key] = TomlPosition(node.source());
      good = ReadWeightedPath(key, node, items.emplace_back()) && good;
    }
    if (items.empty()) AddAt(ConfigErrorKind::kMissing, node_.source(), absl::StrFormat("%s: the list is empty", key_));
    if (good && !items.empty()) *list = std::move(items);
  }

 private:
  void AddAt(ConfigErrorKind kind, const toml::source_region& region, std::string message, std::string hint = "") {
    const Provenance::Position p = TomlPosition(region);
    checks_.Add({kind, key_, std::move(message), std::move(hint), p.line, p.column});
  }
  void WrongType(const toml::node& node, std::string_view expected, std::string hint = "") {
    WrongType(key_, node, expected, std::move(hint));
  }
  void WrongType(const std::string& name, const toml::node& node, std::string_view expected, std::string hint = "") {
    AddAt(ConfigErrorKind::kWrongType, node.source(),
          absl::StrFormat("%s: expected %s, found %s", name, expected, TomlTypeName(node)), std::move(hint));
  }

  // {path = "...", weight = 2.0} into `item`; false after a mistake in it.
  bool ReadWeightedPath(const std::string& name, const toml::node& node, WeightedPath& item) {
    const size_t before = checks_.issues().size();
    const toml::table* table = node.as_table();
    if (table == nullptr) {
      WrongType(name, node, "a table {path, weight}");
      return false;
    }
    for (auto&& [key, value] : *table) {
      if (key.str() == "path") {
        ReadItemPath(name, value, item);
      } else if (key.str() == "weight") {
        ReadItemWeight(name, value, item);
      } else {
        const std::string nearest = NearestName(key.str(), std::vector<std::string>{"path", "weight"});
        AddAt(ConfigErrorKind::kUnknownKey, key.source(), absl::StrFormat("unknown key `%s` in %s", key.str(), name),
              nearest.empty() ? "its keys are path, weight" : absl::StrFormat("did you mean `%s`?", nearest));
      }
    }
    if (!table->contains("path")) {
      AddAt(ConfigErrorKind::kMissing, node.source(), absl::StrFormat("%s: path is not set", name));
    }
    return checks_.issues().size() == before;
  }
  void ReadItemPath(const std::string& name, const toml::node& node, WeightedPath& item) {
    const auto* text = node.as_string();
    if (text == nullptr) return WrongType(name + ".path", node, "a string");
    if (text->get().empty()) {
      AddAt(ConfigErrorKind::kMissing, node.source(), absl::StrFormat("%s.path is empty", name));
    }
    item.path = text->get();
  }
  void ReadItemWeight(const std::string& name, const toml::node& node, WeightedPath& item) {
    const std::optional<double> weight = Number(node);
    if (!weight) return WrongType(name + ".weight", node, "a number");
    if (!(*weight > 0) || !std::isfinite(*weight)) {
      AddAt(ConfigErrorKind::kOutOfRange, node.source(),
            absl::StrFormat("%s.weight = %s: must be above 0 and finite", name, FormatDouble(*weight)));
    }
    item.weight = *weight;
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
  Provenance& provenance_;
  ConfigChecks& checks_;
};

}  // namespace

std::string_view TomlTypeName(const toml::node& node) { return kTypeNames[static_cast<size_t>(node.type())]; }

Provenance::Position TomlPosition(const toml::source_region& region) {
  return {static_cast<int>(region.begin.line), static_cast<int>(region.begin.column)};
}

void ReadTomlField(std::string key, const toml::node& node, const FieldRef& value, Provenance& provenance,
                   ConfigChecks& checks) {
  std::visit(FieldReader(std::move(key), node, provenance, checks), value);
}

}  // namespace strata
