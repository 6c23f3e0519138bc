#include "launch/config/reference.h"

#include <cmath>
#include <iterator>
#include <set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "launch/config/errors.h"
#include "launch/config/job_config.h"
#include "launch/config/print_config.h"

namespace strata {
namespace {

constexpr char kHead[] = R"(# The config file

TOML, read strictly: an unknown key or section, a wrong type or a value outside its limits is an error with file, line
and column, and all errors are reported at once. `strata train FILE --print-config` shows every value and where it came
from. Every key has a default; but a command that uses token files or the tokenizer needs their paths, and `[batch]`
needs two of its three keys.

A relative path is relative to the folder of the config file, wherever the command is run.

`--set SECTION.KEY=VALUE` puts a value over that of the file, on every command that takes a config file and as often as
wanted: `strata train FILE --set optim.lr=0.001 --set run.name=second --set 'optim.no_decay=["*norm*"]'`. The value is TOML,
but a string needs no quotes. A relative path there is relative to the current folder.
)";

std::string Allowed(const ConfigField& field) {
  if (const ChoiceRef* choice = std::get_if<ChoiceRef>(&field.value)) {
    const auto quote = [](std::string* out, std::string_view name) { absl::StrAppendFormat(out, "`\"%s\"`", name); };
    return absl::StrJoin(choice->names, ", ", quote);
  }
  if (std::holds_alternative<std::vector<WeightedPath>*>(field.value)) return "a path, or `[{path, weight}, ...]`";
  const bool integral = std::holds_alternative<int64_t*>(field.value);
  const auto print = [&](double x) { return integral ? absl::StrFormat("%.0f", x) : FormatDouble(x); };
  const bool low = std::isfinite(field.info.min), high = std::isfinite(field.info.max);
  if (low && high) return absl::StrCat(print(field.info.min), " to ", print(field.info.max));
  if (low) return absl::StrCat("at least ", print(field.info.min));
  if (high) return absl::StrCat("at most ", print(field.info.max));
  return field.info.is_path ? "a path" : "";
}

// A default job of every kind there is, the most usual first.
std::vector<JobConfig> JobKinds() {
  std::vector<JobConfig> kinds(1);
  for (size_t i = 1; i < std::size(kModelArchNames); ++i) {
    kinds.emplace_back().model.arch = static_cast<ModelArch>(i);
  }
  for (size_t i = 1; i < std::size(kOptimizerTypeNames); ++i) {
    kinds.emplace_back().optim.type = static_cast<OptimizerType>(i);
  }
  return kinds;
}

void AppendFields(std::string& text, const ConfigSection& section) {
  absl::StrAppend(&text, "| Key | Default | Allowed | Unit | What it is |\n|---|---|---|---|---|\n");
  for (const ConfigField& field : section.fields) {
    absl::StrAppendFormat(&text, "| `%s` | `%s` | %s | %s | %s |\n", field.name, TomlValue(field.value), Allowed(field),
                          field.info.unit, field.info.doc);
  }
}

}  // namespace

std::string ConfigReference() {
  std::vector<JobConfig> kinds = JobKinds();
  std::string text = kHead;
  for (size_t i = 0; i < DescribeJob(kinds[0]).size(); ++i) {
    std::set<std::string> printed;
    for (JobConfig& job : kinds) {
      const ConfigSection section = DescribeJob(job)[i];
      if (printed.empty()) absl::StrAppendFormat(&text, "\n## [%s]\n%s\n", section.name, section.doc);
      if (!printed.insert(section.kind).second) continue;
      absl::StrAppend(&text, "\n", section.kind.empty() ? "" : absl::StrFormat("Where `%s`:\n\n", section.kind));
      AppendFields(text, section);
    }
  }
  absl::StrAppend(&text, "\n## Errors\n\n| Code | What is wrong |\n|---|---|\n");
  for (const ErrorCode& row : kErrorCodes) absl::StrAppendFormat(&text, "| %s | %s |\n", row.code, row.meaning);
  return text;
}

}  // namespace strata
