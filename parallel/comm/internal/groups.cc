#include "parallel/comm/internal/groups.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "core/base/status.h"

namespace strata::internal {

std::string ToString(const CommSpec& spec) {
  return absl::StrFormat("%s of ranks %s", spec.name, absl::StrJoin(spec.ranks, ", "));
}

absl::Status CheckSpec(const CommSpec& spec, int size) {
  if (spec == CommSpec{}) return absl::OkStatus();
  std::vector<int> sorted = spec.ranks;
  std::sort(sorted.begin(), sorted.end());
  const bool distinct = std::adjacent_find(sorted.begin(), sorted.end()) == sorted.end();
  if (!sorted.empty() && distinct && sorted.front() >= 0 && sorted.back() < size) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrFormat("communicator %s: not distinct ranks of %d", ToString(spec), size));
}

absl::Status CheckTogether(const CommSpec& a, const CommSpec& b) {
  const bool overlap =
      std::find_first_of(a.ranks.begin(), a.ranks.end(), b.ranks.begin(), b.ranks.end()) != a.ranks.end();
  if (a == b || !overlap) return absl::OkStatus();
  return absl::InternalError(absl::StrFormat("ranks connect different groups: %s, and %s", ToString(a), ToString(b)));
}

absl::Status CheckRound(std::span<const CommSpec> named) {
  for (const CommSpec& spec : named) {
    RETURN_IF_ERROR(CheckSpec(spec, static_cast<int>(named.size())));
    for (const CommSpec& other : named) RETURN_IF_ERROR(CheckTogether(spec, other));
    for (int r : spec.ranks) {
      if (named[r] == spec) continue;
      return absl::InternalError(
          absl::StrFormat("rank %d connects %s, a member of %s", r, ToString(named[r]), ToString(spec)));
    }
  }
  return absl::OkStatus();
}

}  // namespace strata::internal
