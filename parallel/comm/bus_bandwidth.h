#pragma once
// What a collective of a given size is, and how its speed is told, by the conventions of NCCL's own tests: the size is that of
// the larger buffer of a rank, algorithm bandwidth = size / time, and bus bandwidth = algorithm bandwidth x a factor that
// makes it comparable with the speed of a link whatever the collective and the number of ranks.

#include <cstdint>

#include "core/comm/communicator.h"

namespace strata {

// 2 (n - 1) / n for an all-reduce; (n - 1) / n for an all-gather, a reduce-scatter and an all-to-all; 1 for the others.
double BusFactor(Collective::Kind kind, int n);

// The largest call, without buffers, of which no buffer is larger than `bytes`: whole elements, alike for all members.
// A broadcast is from member 0; a send or receive has no partner yet.
Collective CallOfSize(Collective::Kind kind, DType dtype, int64_t bytes, int n);
int64_t BytesOf(const Collective& call, int n);  // of its larger buffer

}  // namespace strata
