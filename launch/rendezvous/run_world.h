#pragma once
// The ranks of a job, however this process was started: as threads of this process, or as one of several processes.

#include <chrono>
#include <functional>

#include "absl/status/status.h"
#include "core/comm/communicator.h"
#include "launch/rendezvous/environment.h"

namespace strata {

// Runs body as every rank, on threads, if this process is alone, else as the rank of this process, over MPI. An error of
// one rank ends all; Cancelled is none: all ranks agree on it. Where a rank hangs, its peers say so after hang_timeout; a
// thread that does not end even then ends with the process, exit code 124.
// Errors: the causal rank's; Unavailable on ranks that another one's error ends; InvalidArgument where the number of
// processes is not `ranks`.
absl::Status RunWorld(const ProcessPlace& place, int ranks, std::chrono::milliseconds hang_timeout,
                      const std::function<absl::Status(World&)>& body);

}  // namespace strata
