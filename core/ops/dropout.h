#pragma once
// y = x * keep / (1 - rate), where keep is 1 with probability 1 - rate. Source: Srivastava et al., "Dropout" (JMLR 2014).
// Whether an element is kept is a function of (seed, step, Node::key; sample id, position, feature), so it does not depend
// on layout, micro-batch or order, and no mask is stored: the gradient is a dropout with the key of the forward node.
// A model that is evaluated is built without dropout.
// Sharding: every dim of x may be sharded, with the samples or positions that go along. Partial does not pass.

#include <cstdint>
#include <optional>

#include "core/graph/builder.h"

namespace strata {

// x[B, S, E], samples i32 [B], positions i32 [S]; 0 <= rate < 1. With `key`, the mask of the node of that key.
Value Dropout(GraphBuilder& g, Value x_BSE, Value samples_B, Value positions_S, double rate,
              std::optional<uint64_t> key = std::nullopt, SourceLoc loc = SourceLoc::Here());

// For its kernel.
struct DropoutSpec {
  double rate = 0;
  std::optional<uint64_t> key;
};
const DropoutSpec& DropoutSpecOf(const Op& dropout);

}  // namespace strata
