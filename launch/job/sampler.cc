#include "launch/job/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "core/base/philox.h"

namespace strata {

int32_t SampleToken(std::span<const double> logits, const SamplerOptions& options, uint64_t position) {
  std::vector<int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::stable_sort(ids.begin(), ids.end(), [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
  if (options.temperature <= 0) return ids[0];
  if (options.top_k > 0 && options.top_k < static_cast<int64_t>(ids.size())) ids.resize(options.top_k);
  std::vector<double> cumulative;
  double sum = 0;
  for (int32_t id : ids) cumulative.push_back(sum += std::exp((logits[id] - logits[ids[0]]) / options.temperature));
  const auto nucleus = std::lower_bound(cumulative.begin(), cumulative.end(), options.top_p * sum);
  if (nucleus != cumulative.end()) {
    cumulative.erase(nucleus + 1, cumulative.end());
    sum = cumulative.back();
  }
  const double at = PhiloxUniform(Philox(options.seed, HashName("sample"), position)[0]) * sum;
  const auto it = std::upper_bound(cumulative.begin(), cumulative.end(), at);
  return ids[std::min<size_t>(it - cumulative.begin(), cumulative.size() - 1)];
}

}  // namespace strata
