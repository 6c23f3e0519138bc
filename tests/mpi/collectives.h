#pragma once
// A run through all collectives, for comparing transports.

#include <cstdint>

#include "absl/status/statusor.h"
#include "core/comm/communicator.h"

namespace strata::testing {

// A hash of all bits that every kind, in place and not, of every dtype and of several sizes gives this rank: over all
// ranks, over those of the same parity, and without rank 0. Ranks are delayed at random. Collective; needs two ranks.
absl::StatusOr<uint64_t> BitsOfCollectives(World& world);

}  // namespace strata::testing
