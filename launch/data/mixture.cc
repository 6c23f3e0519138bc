#include "launch/data/mixture.h"

#include <cmath>
#include <numeric>

#include "core/base/check.h"

namespace strata {
namespace {

int64_t TakenAt(int64_t n, uint64_t rate) {
  return static_cast<int64_t>((static_cast<unsigned __int128>(n) * rate) >> 32);
}

}  // namespace

Mixture::Mixture(std::span<const double> weights) {
  STRATA_CHECK(!weights.empty());
  for (size_t k = 0; k + 1 < weights.size(); ++k) {
    STRATA_CHECK(weights[k] > 0);
    const double rest = std::accumulate(weights.begin() + static_cast<std::ptrdiff_t>(k), weights.end(), 0.0);
    rates_.push_back(static_cast<uint64_t>(std::floor(std::ldexp(weights[k] / rest, 32))));
  }
}

Mixture::Place Mixture::At(int64_t index) const {
  STRATA_CHECK(index >= 0);
  for (size_t k = 0; k < rates_.size(); ++k) {
    const int64_t taken = TakenAt(index, rates_[k]);
    if (TakenAt(index + 1, rates_[k]) > taken) return {k, taken};
    index -= taken;
  }
  return {rates_.size(), index};
}

int64_t Mixture::Taken(size_t source, int64_t n) const {
  STRATA_CHECK(source < num_sources() && n >= 0);
  for (size_t k = 0; k < source; ++k) n -= TakenAt(n, rates_[k]);
  return source < rates_.size() ? TakenAt(n, rates_[source]) : n;
}

}  // namespace strata
