#pragma once
// Tensor parallelism with collectives beside the products that they feed or follow. A gather of several rows and the product
// that takes it, or a product and the reduce-scatter (or exchange) of its rows, become several of each on groups of rows: while one group is
// on its way, another is multiplied. (The decomposition of Wang et al., "Overlap Communication with Dependent Computation via
// Decomposition", ASPLOS 2023, along the batch.)

#include "core/plan/plan.h"

namespace strata {

// Into at most `groups` groups, where memory allows it: steps between a product and its collective, and the inputs of the
// product, must not share bytes with what is written earlier then. Products of fewer rows are slower, so groups are few.
void SplitRows(Segment& segment, int groups);

}  // namespace strata
