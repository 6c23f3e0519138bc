#pragma once
// Ranks with a GPU each: collectives on device memory by NCCL, ordered on the stream of the call. Host memory stays with the
// world underneath, which also carries NCCL's ids at Connect(). no_nccl_world.cc stands in where Strata is built without it.

#include <chrono>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "core/comm/communicator.h"

namespace strata {

struct NcclWorldOptions {
  std::chrono::milliseconds deadline{
      60'000};  // longest time in which no collective of this rank ends though one is due
};

// One a rank, made and used on the rank's thread, whose current GPU it takes; `host` must outlive it. A thread of its own
// looks every 20 ms for NCCL's asynchronous errors and for collectives that do not end. Either aborts every communicator
// of the world, so that Device::Drain() returns; Poll() and later calls say why.
// Errors: FailedPrecondition where NCCL cannot be opened ($STRATA_NCCL, else libnccl.so.2; 2.20 or later) or a rank has no
// GPU of its own; Unavailable for a lost peer; DeadlineExceeded for a collective that hangs, naming communicator and call.
absl::StatusOr<std::unique_ptr<World>> MakeNcclWorld(World& host, const NcclWorldOptions& options = {});

// "NCCL 2.28.9", or why there is none.
std::string NcclStatusLine();

}  // namespace strata
