#include "launch/config/print_config.h"

#include <algorithm>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace strata {
namespace {

std::string QuoteToml(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    const unsigned char byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      absl::StrAppend(&out, "\\", std::string(1, c));
    } else if (byte < 0x20 || byte == 0x7f) {
      absl::StrAppendFormat(&out, "\\u%04X", byte);
    } else {
      out.push_back(c);
    }
  }
  return out + "\"";
}

class TomlPrinter {
 public:
  std::string operator()(const bool* value) const { return *value ? "true" : "false"; }
  std::string operator()(const int64_t* value) const { return absl::StrCat(*value); }
  std::string operator()(const double* value) const { return FormatDouble(*value); }
  std::string operator()(const std::string* value) const { return QuoteToml(*value); }
  std::string operator()(const ChoiceRef& choice) const { return QuoteToml(std::string(choice.names[*choice.value])); }
  std::string operator()(const WeightedPath* item) const {
    return absl::StrFormat("{path = %s, weight = %s}", QuoteToml(item->path), FormatDouble(item->weight));
  }
  std::string operator()(const std::vector<WeightedPath>* list) const {
    if (list->empty()) return QuoteToml("");
    if (list->size() == 1 && list->front().weight == 1) return QuoteToml(list->front().path);
    return PrintList(*list);
  }
  template <class T>
  std::string operator()(const std::vector<T>* list) const {
    return PrintList(*list);
  }

 private:
  template <class T>
  std::string PrintList(const std::vector<T>& list) const {
    const auto print = [this](std::string* out, const T& item) { out->append((*this)(&item)); };
    return absl::StrCat("[", absl::StrJoin(list, ", ", print), "]");
  }
};

std::string PrintSection(const ConfigSection& section, const Provenance& provenance) {
  std::vector<std::string> lines;
  size_t width = 0;
  for (const ConfigField& field : section.fields) {
    lines.push_back(absl::StrCat(field.name, " = ", TomlValue(field.value)));
    width = std::max(width, lines.back().size());
  }
  std::string text = absl::StrFormat("[%s]\n", section.name);
  for (size_t i = 0; i < lines.size(); ++i) {
    const std::string key = absl::StrCat(section.name, ".", section.fields[i].name);
    absl::StrAppendFormat(&text, "%-*s  # %s\n", static_cast<int>(width), lines[i], provenance.Of(key));
  }
  return text;
}

}  // namespace

std::string TomlValue(const FieldRef& field) { return std::visit(TomlPrinter{}, field); }

std::string PrintConfig(const JobConfig& config, const Provenance& provenance) {
  JobConfig job = config;  // descriptions point into it
  std::string text;
  for (const ConfigSection& section : DescribeJob(job)) {
    absl::StrAppend(&text, text.empty() ? "" : "\n", PrintSection(section, provenance));
  }
  return text;
}

}  // namespace strata
