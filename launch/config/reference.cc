#include "launch/config/reference.h"

#include <cmath>
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
  const bool integral = std::holds_alternative<int64_t*>(field.value);
  const auto print = [&](double x) { return integral ? absl::StrFormat("%.0f", x) : FormatDouble(x); };
  const bool low = std::isfinite(field.info.min), high = std::isfinite(field.info.max);
  if (low && high) return absl::StrCat(print(field.info.min), " to ", print(field.info.max));
  if (low) return absl::StrCat("at least ", print(field.info.min));
  if (high) return absl::StrCat("at most ", print(field.info.max));
  return field.info.is_path ? "a path" : "";
}

}  // namespace

std::string ConfigReference() {
  JobConfig defaults;
  std::string text = kHead;
  for (const ConfigSection& section : DescribeJob(defaults)) {
    absl::StrAppendFormat(&text,
                          "\n## [%s]\n%s\n\n| Key | Default | Allowed | Unit | What it is |\n|---|---|---|---|---|\n",
                          section.name, section.doc);
    for (const ConfigField& field : section.fields) {
      absl::StrAppendFormat(&text, "| `%s` | `%s` | %s | %s | %s |\n", field.name, TomlValue(field.value),
                            Allowed(field), field.info.unit, field.info.doc);
    }
  }
  absl::StrAppend(&text, "\n## Errors\n\n| Code | What is wrong |\n|---|---|\n");
  for (const ErrorCode& row : kErrorCodes) absl::StrAppendFormat(&text, "| %s | %s |\n", row.code, row.meaning);
  return text;
}

}  // namespace strata
