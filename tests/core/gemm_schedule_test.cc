// The order in which products of ours on Hopper take tiles. Needs no GPU.

#include "core/kernels/gemm_sm90_schedule.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>
#include <utility>
#include <vector>

namespace strata::sm90 {
namespace {

// Grids of training's products and small ones: whole waves, cut tiles, all tiles cut, fewer blocks of k than clusters.
std::vector<std::pair<TileGrid, int>> Cases() {
  std::vector<std::pair<TileGrid, int>> cases;
  for (const int clusters : {1, 3, 32, 66}) {
    for (const auto& [rows, columns, k_blocks] : {std::array{64, 44, 32},
                                                  {64, 8, 176},
                                                  {44, 8, 256},
                                                  {8, 22, 256},
                                                  {1, 1, 1},
                                                  {1, 1, 2},
                                                  {3, 5, 7},
                                                  {66, 1, 4}}) {
      for (const int group : {1, 4, 8, 12}) {
        TileGrid grid{rows, columns, group, k_blocks};
        for (const int direct : {grid.Tiles(), grid.Tiles() / clusters * clusters,
                                 std::max(0, grid.Tiles() / clusters - 1) * clusters, 0}) {
          grid.direct = direct;
          cases.emplace_back(grid, clusters);
        }
      }
    }
  }
  return cases;
}

TEST(GemmSchedule, TakesEveryBlockOfEveryTileOnce) {
  for (const auto& [grid, clusters] : Cases()) {
    std::map<std::pair<int, int>, std::vector<std::pair<int, int>>> taken;  // tile -> blocks of k
    for (int c = 0; c < clusters; ++c) {
      Schedule schedule(grid, clusters, c);
      for (Segment s; schedule.Next(s);) {
        ASSERT_TRUE(s.m >= 0 && s.m < grid.rows && s.n >= 0 && s.n < grid.columns && s.first < s.end);
        taken[{s.m, s.n}].emplace_back(s.first, s.end);
      }
    }
    ASSERT_EQ(taken.size(), static_cast<size_t>(grid.Tiles()));
    for (auto& [tile, segments] : taken) {
      std::sort(segments.begin(), segments.end());
      int at = 0;
      for (const auto& [first, end] : segments) {
        ASSERT_EQ(first, at);
        at = end;
      }
      ASSERT_EQ(at, grid.k_blocks);
    }
  }
}

TEST(GemmSchedule, SharesOfCutTilesDifferByOneBlockAtMost) {
  for (const auto& [grid, clusters] : Cases()) {
    std::vector<int> blocks(clusters);
    for (int c = 0; c < clusters; ++c) {
      TileGrid cut = grid;
      Schedule schedule(cut, clusters, c);
      int whole = grid.direct / clusters + (c < grid.direct % clusters ? 1 : 0);
      for (Segment s; schedule.Next(s);) blocks[c] += s.end - s.first;
      blocks[c] -= whole * grid.k_blocks;
    }
    EXPECT_LE(*std::max_element(blocks.begin(), blocks.end()) - *std::min_element(blocks.begin(), blocks.end()), 1);
  }
}

// A cluster leaves partial sums of one segment at most, its first; who has k = 0 of that tile is told of it, and started later.
TEST(GemmSchedule, WhoHasTheBeginningOfATileWaitsForClustersThatWereStartedBefore) {
  for (const auto& [grid, clusters] : Cases()) {
    std::map<std::pair<int, int>, std::vector<int>> left, added;  // tile -> shares
    for (int c = 0; c < clusters; ++c) {
      Schedule schedule(grid, clusters, c);
      bool is_first = true;
      for (Segment s; schedule.Next(s); is_first = false) {
        if (s.first > 0) {
          ASSERT_TRUE(is_first);
          left[{s.m, s.n}].push_back(schedule.part());
        } else if (s.end < grid.k_blocks) {
          for (int p = schedule.part() + 1; p <= schedule.LastPart(); ++p) {
            if (schedule.HasPart(p)) added[{s.m, s.n}].push_back(p);
            ASSERT_LT(clusters - 1 - p, c);  // the cluster of share p
          }
        }
      }
    }
    for (auto& [tile, parts] : left) std::sort(parts.begin(), parts.end());
    EXPECT_EQ(left, added);
  }
}

// Clusters that run at the same time have few rows and columns between them: what they load is in the L2 cache for others.
TEST(GemmSchedule, NeighboursShareRowsAndColumns) {
  TileGrid grid{64, 44, 8, 32};
  grid.direct = grid.Tiles();
  std::map<int, int> rows, columns;
  for (int c = 0; c < 66; ++c) {
    Schedule schedule(grid, 66, c);
    Segment s;
    ASSERT_TRUE(schedule.Next(s));
    ++rows[s.m];
    ++columns[s.n];
  }
  EXPECT_EQ(rows.size(), 8u);
  EXPECT_EQ(columns.size(), 9u);
}

}  // namespace
}  // namespace strata::sm90
