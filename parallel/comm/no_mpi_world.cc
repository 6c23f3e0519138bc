// In the place of mpi_world.cc where Strata is built without MPI.

#include "parallel/comm/mpi_world.h"

namespace strata {
namespace {

absl::Status NoMpi() { return absl::UnimplementedError("this build has no MPI (STRATA_MPI=OFF)"); }

}  // namespace

absl::StatusOr<std::unique_ptr<MpiSession>> MpiSession::Start() { return NoMpi(); }
absl::Status MpiSession::Finish() { return NoMpi(); }
absl::Status RunMpiRank(MpiSession&, const std::function<absl::Status(World&)>&, MpiWorldOptions) { return NoMpi(); }

}  // namespace strata
