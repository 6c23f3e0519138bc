#include "launch/rendezvous/run_world.h"

#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "launch/cli/exit_codes.h"
#include "parallel/comm/mpi_world.h"
#include "parallel/comm/thread_world.h"

namespace strata {
namespace {

absl::Status CheckSize(const ProcessPlace& place, int ranks) {
  if (place.size == ranks) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrFormat("the job has %d ranks (parallel.pp * dp * tp), and was started as %d processes (%s=%d); start "
                      "%d, or one, whose threads are the ranks",
                      ranks, place.size, place.source, place.rank, ranks));
}

absl::Status CheckSession(const ProcessPlace& place, const MpiSession& session) {
  if (session.rank() == place.rank && session.size() == place.size) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrFormat(
      "%s says rank %d of %d, MPI says rank %d of %d: start processes with mpirun, srun --mpi=pmix or strata launch, "
      "of the MPI that strata was built with",
      place.source, place.rank, place.size, session.rank(), session.size()));
}

absl::Status RunProcess(const ProcessPlace& place, std::chrono::milliseconds hang_timeout,
                        const std::function<absl::Status(World&)>& body) {
  ASSIGN_OR_RETURN(const std::unique_ptr<MpiSession> session, MpiSession::Start());
  RETURN_IF_ERROR(CheckSession(place, *session));
  absl::Status cancelled;
  const auto unless_cancelled = [&](World& world) {
    absl::Status status = body(world);
    if (!absl::IsCancelled(status)) return status;
    cancelled = std::move(status);
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(RunMpiRank(*session, unless_cancelled, {hang_timeout, place.ledger}));
  RETURN_IF_ERROR(session->Finish());
  return cancelled;
}

void EndProcess(const absl::Status& error) {
  std::fflush(stdout);
  absl::FPrintF(stderr, "error: %s\n", std::string(error.message()));
  std::_Exit(ExitCode(error));
}

}  // namespace

absl::Status RunWorld(const ProcessPlace& place, int ranks, std::chrono::milliseconds hang_timeout,
                      const std::function<absl::Status(World&)>& body) {
  if (place.alone()) return RunRanks(ranks, body, {.deadline = hang_timeout, .on_stuck = EndProcess});
  RETURN_IF_ERROR(CheckSize(place, ranks));
  return RunProcess(place, hang_timeout, body);
}

}  // namespace strata
