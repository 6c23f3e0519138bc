#pragma once
// Ranks that are threads of one process, each with a GPU whose memory the others reach: collectives are copies by the GPUs'
// copy engines and sums that read the peers' memory, ordered by events of all members' streams. Nothing polls on a GPU, so
// that what waits, such as a receive whose sender still computes, takes nothing from the computing beside it.

#include <chrono>
#include <memory>

#include "absl/status/statusor.h"
#include "core/comm/communicator.h"

namespace strata {

struct PeerWorldOptions {
  std::chrono::milliseconds deadline{60'000};  // longest wait for a peer's thread at a collective
  int sum_blocks = 24;                         // of a GPU, for a sum over peers; copies take none
};

// One a rank, made and used on the rank's thread, whose current GPU it takes; collective over the world. `host`, which must
// outlive it, connects the same ranks on host memory and carries what they agree on: its deadline, blame and aborts are this
// world's.
//
// Issue() returns when all members have come to the call and the work is on the stream. Sums are in the order of ranks, so
// they have the bits of thread ranks (float32, bf16, integers).
// Errors: FailedPrecondition, on all ranks, where some are other processes, share a GPU, or have no link that reads memory:
// NCCL is for them. Those of `host`.
absl::StatusOr<std::unique_ptr<World>> MakePeerWorld(World& host, const PeerWorldOptions& options = {});

}  // namespace strata
