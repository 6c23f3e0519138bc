#include "launch/data/training_data.h"

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace strata {

std::string TrainingData::Describe(int64_t first, int64_t count) const {
  std::string all = absl::StrFormat("samples %d to %d", first, first + count - 1);
  if (sources.size() == 1) return all;
  std::vector<std::string> parts;
  for (size_t k = 0; k < sources.size(); ++k) {
    const int64_t begin = mixture.Taken(k, first), end = mixture.Taken(k, first + count);
    if (begin == end) continue;
    parts.push_back(absl::StrFormat("%s %d to %d", sources[k].dataset().prefix(), begin, end - 1));
  }
  return absl::StrFormat("%s (%s)", all, absl::StrJoin(parts, ", "));
}

}  // namespace strata
