#include "launch/data/baselines.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace strata {
namespace {

TEST(BaselinesTest, HandComputed) {
  // V = 3. Bigrams of train: 00 01 10 00 01 12 -> 00:2, 01:2, 10:1, 12:1; n1 = 2, n2 = 2, D = 2 / 6.
  const std::vector<int32_t> train = {0, 0, 1, 0, 0, 1, 2};
  // Before 0: {0, 1}; before 1: {0}; before 2: {1}; P = 4. q = 3/7, 2/7, 2/7.
  const std::vector<int32_t> valid = {0, 1, 1, 2, 0};
  const double d = 1.0 / 3;
  const double p01 = (2 - d) / 4 + d * 2 / 4 * (2.0 / 7);
  const double p11 = 0 + d * 2 / 2 * (2.0 / 7);
  const double p12 = (1 - d) / 2 + d * 2 / 2 * (2.0 / 7);
  const double p20 = 3.0 / 7;  // nothing followed 2
  const Baselines nats = CountBaselines(train, valid, 3);
  EXPECT_NEAR(nats.uniform, std::log(3.0), 1e-12);
  EXPECT_NEAR(nats.unigram, -(std::log(3.0 / 10) * 2 + std::log(2.0 / 10) + std::log(5.0 / 10)) / 4, 1e-12);
  EXPECT_NEAR(nats.bigram, -(std::log(p01) + std::log(p11) + std::log(p12) + std::log(p20)) / 4, 1e-12);
}

TEST(BaselinesTest, ProbabilitiesSumToOne) {
  // exp(-nats) of a two-token stream is one bigram probability.
  const std::vector<int32_t> train = {0, 3, 1, 3, 3, 0, 2, 0, 3, 1, 1, 0, 4};
  for (int32_t previous = 0; previous < 6; ++previous) {
    double unigram = 0, bigram = 0;
    for (int32_t token = 0; token < 6; ++token) {
      const Baselines nats = CountBaselines(train, std::vector<int32_t>{previous, token}, 6);
      unigram += std::exp(-nats.unigram);
      bigram += std::exp(-nats.bigram);
    }
    EXPECT_NEAR(unigram, 1, 1e-12);
    EXPECT_NEAR(bigram, 1, 1e-12);
  }
}

TEST(BaselinesTest, EmptyTrainingIsUniform) {
  const Baselines nats = CountBaselines({}, std::vector<int32_t>{0, 1, 2}, 8);
  EXPECT_NEAR(nats.unigram, std::log(8.0), 1e-12);
  EXPECT_NEAR(nats.bigram, std::log(8.0), 1e-12);
}

}  // namespace
}  // namespace strata
