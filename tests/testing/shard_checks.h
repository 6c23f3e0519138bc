#pragma once
// Proves an op's sharding rules: what the ranks compute locally, put together by the rule's placements, is the whole
// result.

#include <vector>

#include "tests/testing/interpreter.h"

namespace strata::testing {

// `fn` applies one op to its arguments, in order. Every rule of that op without `expand` is tried on `ranks` ranks:
// operands are cut by placement (Partial(sum): into random summands), the op runs on each rank with origins and global
// extents set, and the outputs are joined. All tensors f64 or integer. Rules that do not divide are skipped, as the
// shard pass does. Errors: a difference over 1e-12, or another number of rules tried than `num_rules`.
absl::Status CheckShardRules(const GraphFn& fn, const std::vector<Tensor>& inputs, int num_rules, int ranks = 2);

}  // namespace strata::testing
