// The order in which attention's kernels for Hopper take tiles. Needs no GPU.
#include <gtest/gtest.h>

#include <set>
#include <utility>

#include "core/kernels/attention_sm90_host.h"

namespace strata::sm90 {
namespace {

TEST(AttentionOrder, TakesEveryTileOnceAndTheHeaviestOfAGroupFirst) {
  for (const TileOrder& order : {TileOrder{1, 1, 1}, TileOrder{16, 128, 8}, TileOrder{5, 7, 3}, TileOrder{3, 4, 4}}) {
    std::set<std::pair<int, int>> taken;
    int group = 0, tile = 0;
    for (int i = 0; i < order.tiles * order.heads; ++i) {
      const TileOrder::Place place = order.At(i);
      ASSERT_TRUE(place.head >= 0 && place.head < order.heads && place.tile >= 0 && place.tile < order.tiles) << i;
      EXPECT_TRUE(taken.insert({place.head, place.tile}).second) << i;
      EXPECT_GE(std::make_pair(place.head / order.group, place.tile), std::make_pair(group, tile)) << i;
      group = place.head / order.group, tile = place.tile;
    }
  }
}

TEST(AttentionOrder, GroupsHeadsThatShareKeysAndFitTheCache) {
  EXPECT_EQ(OrderOf(16, 128, 1, 1 << 20, 8 << 20).group, 8);
  EXPECT_EQ(OrderOf(32, 48, 3, 2 << 20, 8 << 20).group, 12) << "four kv heads of three";
  EXPECT_EQ(OrderOf(128, 16, 4, 64 << 20, 8 << 20).group, 4) << "one kv head at least";
  EXPECT_EQ(OrderOf(1, 6, 3, 1024, 8 << 20).group, 6) << "all";
}

}  // namespace
}  // namespace strata::sm90
