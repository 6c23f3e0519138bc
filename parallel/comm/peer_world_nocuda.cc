#include "absl/status/status.h"
#include "parallel/comm/peer_world.h"

namespace strata {

absl::StatusOr<std::unique_ptr<World>> MakePeerWorld(World&, const PeerWorldOptions&) {
  return absl::FailedPreconditionError("no copies between GPUs: this strata was built without CUDA");
}

}  // namespace strata
