#pragma once
// Ranks with a GPU each: collectives on device memory by NCCL, ordered on the stream of the call. Host memory stays with the
// world underneath, which also carries NCCL's ids at Connect(), and aborts. no_nccl_world.cc stands in where Strata is built
// without it.

#include <chrono>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "core/comm/communicator.h"
#include "core/exec/device_memory.h"
#include "parallel/comm/comm_config.h"

namespace strata {

enum class NcclTrace : uint8_t { kCalls, kNone };  // kNone: no hang is seen; to measure what it costs

struct NcclWorldOptions {
  // Longest time in which no collective of this rank ends though one is due.
  std::chrono::milliseconds deadline{60'000};
  int collective_ctas = 0,
      edge_ctas = 0;  // at most so many blocks of the GPU a collective, a send or receive; 0: NCCL's choice
  NcclLaunch launch = NcclLaunch::kBackground;
  NcclBuffers buffers = NcclBuffers::kPlain;
  NcclTrace trace = NcclTrace::kCalls;
};
NcclWorldOptions OptionsOf(const CommConfig& config, std::chrono::milliseconds deadline);

class NcclWorld : public World {
 public:
  // Memory that NCCL may reach directly: give it to the device before it reserves any. Every communicator that is connected
  // afterwards registers all of it, by NcclWorldOptions::buffers.
  virtual DeviceMemory memory() = 0;
};

// One a rank, made and used on the rank's thread, whose current GPU it takes; `host` must outlive it. A thread of its own
// looks every 20 ms for NCCL's asynchronous errors, for collectives that do not end, and for aborts by other ranks. Each
// aborts every communicator of the world, so that Device::Drain() returns; Poll() and later calls say why, and the other ranks
// hear it too.
// Errors: FailedPrecondition where NCCL cannot be opened ($STRATA_NCCL, else libnccl.so.2; 2.20 or later) or a rank has no
// GPU of its own; Unavailable for a lost peer; DeadlineExceeded for a collective that hangs, naming the rank that hangs, what
// it does, communicator and call.
absl::StatusOr<std::unique_ptr<NcclWorld>> MakeNcclWorld(World& host, const NcclWorldOptions& options = {});

// "NCCL 2.28.9", or why there is none.
std::string NcclStatusLine();

}  // namespace strata
