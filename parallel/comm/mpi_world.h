#pragma once
// Ranks that are processes started by mpirun or srun: collectives of host buffers over MPI, with the bits of thread ranks.

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "core/comm/communicator.h"

namespace strata {

struct MpiWorldOptions {
  std::chrono::milliseconds deadline{60'000};  // longest wait for a peer
  // Of the job's ledger (core/comm/rank_ledger.h), where somebody else reads it too; empty: one of its own.
  std::string ledger;
};

// From MPI_Init to MPI_Finalize: one a process, made and used by its main thread.
class MpiSession {
 public:
  // Unavailable where MPI cannot start; Unimplemented in a build without MPI.
  static absl::StatusOr<std::unique_ptr<MpiSession>> Start();

  int rank() const { return rank_; }  // in MPI_COMM_WORLD
  int size() const { return size_; }
  // Collective, after runs that all ended well. A process that failed must not call it: it would wait for its peers. That
  // it ends without tells mpirun that the job failed.
  absl::Status Finish();

 private:
  friend absl::Status RunMpiRank(MpiSession&, const std::function<absl::Status(World&)>&, MpiWorldOptions);
  MpiSession() = default;
  int rank_ = 0, size_ = 1;
  [[maybe_unused]] int next_tag_ = 0;  // runs of a session use tags of their own
};

// Runs body as this process's rank, and waits for the other ranks to end theirs. A rank that returns an error aborts the
// job, so that its peers wake with Unavailable("rank 3: <cause>"); an abort of one communicator ends all of them. Returns
// the error, annotated with the rank that it is of. Collectives behave as those of thread ranks (thread_world.h) do.
absl::Status RunMpiRank(MpiSession& session, const std::function<absl::Status(World&)>& body,
                        MpiWorldOptions options = {});

}  // namespace strata
