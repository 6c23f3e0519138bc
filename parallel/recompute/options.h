#pragma once
// What backward computes again instead of reading what forward kept.

#include <cstdint>
#include <string_view>

namespace strata {

// kSelective: norms and activation functions. kBlock: all of a transformer block; only its input is kept (Chen et al.,
// "Training deep nets with sublinear memory cost", 2016). kAuto: the least that fits, chosen by planning.
enum class Recompute : uint8_t { kNone, kSelective, kBlock, kAuto };
inline constexpr std::string_view kRecomputeNames[] = {"none", "selective", "block", "auto"};

// Of the transformer blocks of a graph, the first `whole` are recomputed whole, the next `selective` selectively.
struct RecomputeBlocks {
  int whole = 0, selective = 0;
  bool operator==(const RecomputeBlocks&) const = default;
};

}  // namespace strata
