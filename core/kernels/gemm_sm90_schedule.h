#pragma once
// Which tiles of D a cluster of core/kernels/gemm_sm90.cuh computes, and of each which blocks of k. Plain integers, for the kernel and its test.

namespace strata::sm90 {

struct TileGrid {
  int rows = 0, columns = 0;  // clusters' tiles along m and n
  int group = 1;              // rows that share columns in the L2 cache
  int k_blocks = 0;
  int direct =
      0;  // the first tiles, done whole; the others are cut along k, so that all clusters get as many blocks of them

  constexpr int Tiles() const { return rows * columns; }
};

struct Segment {
  int m = 0, n = 0, first = 0, end = 0;  // the tile's row and column; blocks of k
};

// Of one cluster: its share of the cut tiles, then whole ones. What it does of a cut tile that begins before its share are partial sums
// for the cluster whose share has the tile's k = 0: that one adds them, from the next share on.
class Schedule {
 public:
  constexpr Schedule(const TileGrid& grid, int clusters, int cluster)
      // Waited-for clusters have smaller indices than who waits: they are started earlier.
      : grid_(grid),
        clusters_(clusters),
        tile_(cluster),
        part_(clusters - 1 - cluster),
        at_(Begin(part_)),
        end_(Begin(part_ + 1)) {}

  constexpr bool Next(Segment& s) {
    if (at_ < end_) {
      const int first = at_ % grid_.k_blocks, left = first + end_ - at_;
      s = At(grid_.direct + at_ / grid_.k_blocks, first, left < grid_.k_blocks ? left : grid_.k_blocks);
      at_ += s.end - first;
      return true;
    }
    if (tile_ >= grid_.direct) return false;
    s = At(tile_, 0, grid_.k_blocks);
    tile_ += clusters_;
    return true;
  }
  // This share, by which partial sums are kept.
  constexpr int part() const { return part_; }
  // Where the segment just given is cut at its end: the last share that has some of the tile. All from part() + 1 to it do, but for
  // those with nothing at all.
  constexpr int LastPart() const {
    const int tile_end = (at_ + grid_.k_blocks - 1) / grid_.k_blocks * grid_.k_blocks;
    int p = part_;
    while (Begin(p + 1) < tile_end) ++p;
    return p;
  }
  constexpr bool HasPart(int part) const { return Begin(part) < Begin(part + 1); }

 private:
  // Of the cut tiles' blocks, in a row.
  constexpr int Begin(int part) const {
    const long long blocks = static_cast<long long>(grid_.Tiles() - grid_.direct) * grid_.k_blocks;
    return static_cast<int>(blocks * part / clusters_);
  }
  constexpr Segment At(int tile, int first, int end) const {
    const int per_group = grid_.group * grid_.columns, g = tile / per_group, in = tile % per_group;
    const int left = grid_.rows - g * grid_.group, rows = left < grid_.group ? left : grid_.group;
    return {g * grid_.group + in % rows, in / rows, first, end};
  }

  TileGrid grid_;
  int clusters_, tile_, part_, at_, end_;
};

}  // namespace strata::sm90
