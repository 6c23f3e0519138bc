#pragma once
// Recompute: backward computes activations again, so that forward need not keep them (Chen et al., "Training deep nets with
// sublinear memory cost", 2016; selective: Korthikanti et al. 2022, sec. 5).

#include "absl/status/statusor.h"
#include "core/graph/graph.h"
#include "parallel/recompute/options.h"

namespace strata {

// Runs on the sharded graph. Backward nodes of a recomputed block read clones of the block's forward nodes, each made right
// before its first use: with the key of the original, so that random numbers are the same, and in the phase of its earliest
// reader. Clones read what is kept: the block's inputs and, where it is recomputed selectively, all but the outputs of norms
// and activation functions. Collectives are cloned too. Results have the same bits as without.
absl::StatusOr<Graph> RecomputePass(const Graph& local, const RecomputeBlocks& blocks);

}  // namespace strata
