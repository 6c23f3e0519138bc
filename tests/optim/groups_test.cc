#include "optim/groups.h"

#include <gtest/gtest.h>

namespace strata {
namespace {

TEST(Groups, PatternsExemptFromDecay) {
  OptimConfig config;
  config.weight_decay = 0.25;
  EXPECT_EQ(WeightDecay(config, "blocks.3.wq"), 0.25);
  EXPECT_EQ(WeightDecay(config, "blocks.3.attn_norm"), 0);
  EXPECT_EQ(WeightDecay(config, "head.bias"), 0);
  config.no_decay = {};
  EXPECT_EQ(WeightDecay(config, "blocks.3.attn_norm"), 0.25);
  config.no_decay = {"embed"};
  EXPECT_EQ(WeightDecay(config, "embed"), 0);
  EXPECT_EQ(WeightDecay(config, "embed2"), 0.25);
}

}  // namespace
}  // namespace strata
