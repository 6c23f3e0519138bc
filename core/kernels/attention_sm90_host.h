#pragma once
// The host's side of the Hopper kernels: tensor maps, and the order in which tiles are taken. CUDA sources only.

#include <cuda.h>

#include "absl/status/statusor.h"
#include "core/kernels/attention_cuda.h"

namespace strata::sm90 {

// x[b, rows, heads, d], rows `row_stride` elements apart, in boxes of `box_rows` x 64 columns; what lies outside reads as zero and
// is not written.
absl::StatusOr<CUtensorMap> HeadsMap(const void* x, int64_t b, int64_t rows, int64_t heads, int64_t d,
                                     int64_t row_stride, int box_rows);

absl::StatusOr<int> Processors();  // of the current GPU

// Heads are taken in groups whose keys and values, or what they are read for, stay in the L2 cache together; of a group's tiles the
// heaviest first.
struct TileOrder {
  int tiles = 0, heads = 0, group = 0;  // tiles a head, (batch, head) pairs, of which `group` together

  struct Place {
    int head, tile;  // tile: how many of the head's are heavier
  };
  constexpr Place At(int number) const {  // of tiles * heads
    const int per_group = group * tiles, first = number / per_group * group, rest = number % per_group;
    const int together = group < heads - first ? group : heads - first;
    return {first + rest % together, rest / together};
  }
};
// Of heads of which `heads_per_kv` share `kv_head_bytes`.
TileOrder OrderOf(int64_t tiles, int64_t heads, int64_t heads_per_kv, int64_t kv_head_bytes, int64_t cache_bytes);

}  // namespace strata::sm90
