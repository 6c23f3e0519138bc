#pragma once
// Goes through the lists of all ranks without time and without buffers: a send ends when its receive does, a reduction
// when all members are there, and messages of a channel keep their order.

#include "absl/status/status.h"
#include "parallel/pipeline/lower.h"

namespace strata {

enum class Grouping : uint8_t {
  kOneByOne,  // each send and receive on its own
  kGroups,    // those of equal non-zero overlap together
};

// FailedPrecondition where it locks, or where the ends of a channel disagree.
absl::Status ExecuteRendezvous(const LoweredSchedule& lowered, Grouping grouping);

}  // namespace strata
