#include "launch/data/mixture.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

namespace strata {
namespace {

const std::vector<double> kCases[] = {{1}, {1, 1}, {3, 1}, {2, 1, 1}, {0.1, 0.7, 5, 0.2}, {1, 1e-6}, {1e-6, 1, 1}};

TEST(Mixture, OfOneSourceIsThatSource) {
  const Mixture mixture(std::vector<double>{0.3});
  for (int64_t i : {int64_t{0}, int64_t{1}, int64_t{1} << 60}) {
    EXPECT_EQ(mixture.At(i).source, 0u);
    EXPECT_EQ(mixture.At(i).sample, i);
  }
}

TEST(Mixture, EveryPrefixHasEachSourcesShareAndItsSamplesInOrder) {
  for (const std::vector<double>& weights : kCases) {
    const Mixture mixture(weights);
    const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
    std::vector<int64_t> taken(weights.size());
    for (int64_t i = 0; i < 20000; ++i) {
      const Mixture::Place place = mixture.At(i);
      ASSERT_LT(place.source, weights.size());
      ASSERT_EQ(place.sample, taken[place.source]++) << "sample " << i;
      for (size_t k = 0; k < weights.size(); ++k) {
        ASSERT_EQ(mixture.Taken(k, i + 1), taken[k]);
        const double share = static_cast<double>(i + 1) * weights[k] / sum;
        ASSERT_LT(std::abs(static_cast<double>(taken[k]) - share), static_cast<double>(k) + 1.001) << i << " " << k;
      }
    }
  }
}

TEST(Mixture, SharesHoldFarOut) {
  const Mixture mixture(std::vector<double>{5, 3, 2});
  const int64_t n = int64_t{1} << 50;
  const double want[] = {0.5, 0.3, 0.2};
  int64_t all = 0;
  for (size_t k = 0; k < 3; ++k) {
    const int64_t taken = mixture.Taken(k, n);
    all += taken;
    EXPECT_NEAR(static_cast<double>(taken) / static_cast<double>(n), want[k], 1e-9);
    EXPECT_EQ(taken + (mixture.At(n).source == k), mixture.Taken(k, n + 1));
  }
  EXPECT_EQ(all, n);
  const Mixture::Place place = mixture.At(n);
  EXPECT_EQ(place.sample, mixture.Taken(place.source, n));
}

}  // namespace
}  // namespace strata
