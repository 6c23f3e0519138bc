#include "launch/job/sampler.h"

#include <cmath>
#include <set>
#include <vector>

#include <gtest/gtest.h>

namespace strata {
namespace {

const std::vector<double> kLogits = {std::log(0.1), std::log(0.5), std::log(0.15), std::log(0.25)};

std::vector<int> Counts(const SamplerOptions& options, int draws) {
  std::vector<int> counts(kLogits.size());
  for (int i = 0; i < draws; ++i) ++counts[SampleToken(kLogits, options, i)];
  return counts;
}

TEST(Sampler, TemperatureZeroIsTheLikeliest) {
  EXPECT_EQ(Counts({.temperature = 0}, 50), (std::vector<int>{0, 50, 0, 0}));
}

TEST(Sampler, DrawsByProbability) {
  const std::vector<int> counts = Counts({}, 4000);
  for (size_t i = 0; i < counts.size(); ++i) EXPECT_NEAR(counts[i] / 4000.0, std::exp(kLogits[i]), 0.03);
}

TEST(Sampler, TopKAndTopPKeepTheLikeliest) {
  const auto kept = [](const SamplerOptions& options) {
    std::set<int> ids;
    for (int i = 0; i < 2000; ++i) ids.insert(SampleToken(kLogits, options, i));
    return ids;
  };
  EXPECT_EQ(kept({.top_k = 2}), (std::set<int>{1, 3}));
  EXPECT_EQ(kept({.top_p = 0.7}), (std::set<int>{1, 3}));
  EXPECT_EQ(kept({.top_p = 0.8}), (std::set<int>{1, 2, 3}));
  EXPECT_EQ(kept({.top_p = 0.49}), (std::set<int>{1}));
  EXPECT_EQ(kept({.top_p = 0}), (std::set<int>{1}));
  EXPECT_EQ(kept({.top_p = 1}).size(), 4u);
  EXPECT_EQ(kept({.top_k = 1, .top_p = 0.9}), (std::set<int>{1}));
}

}  // namespace
}  // namespace strata
