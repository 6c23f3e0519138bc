#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "core/base/check.h"
#include "launch/config/load_config.h"
#include "launch/config/print_config.h"
#include "tests/fuzz/targets.h"

namespace strata::fuzz {
namespace {

constexpr size_t kMaxOverrides = 4;

// One line "error[E0107]: ..." an issue, each followed by its place: the file, or the override.
void CheckErrors(const std::string& text) {
  int errors = 0, places = 0;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    errors += absl::StartsWith(line, "error[E");
    places += absl::StartsWith(line, "  --> job.toml") || absl::StartsWith(line, "  --> --set ");
  }
  STRATA_CHECK(errors > 0 && places >= errors);
}

}  // namespace

void Config(std::string_view input) {
  const size_t end = std::min(input.find('\0'), input.size());
  Overrides overrides;
  for (size_t begin = end; begin < input.size() && overrides.size() < kMaxOverrides;) {
    const size_t next = std::min(input.find('\0', begin + 1), input.size());
    overrides.emplace_back(input.substr(begin + 1, next - begin - 1));
    if (overrides.back().find('\n') != std::string::npos) return;  // an error repeats it, and CheckErrors counts lines
    begin = next;
  }
  const absl::StatusOr<LoadedJob> job = ParseJobConfig(input.substr(0, end), "job.toml", overrides);
  if (!job.ok()) return CheckErrors(std::string(job.status().message()));
  const absl::StatusOr<LoadedJob> again = ParseJobConfig(PrintConfig(job->config, job->provenance), "other.toml");
  STRATA_CHECK(again.ok());
  STRATA_CHECK(again->config == job->config);
}

}  // namespace strata::fuzz
