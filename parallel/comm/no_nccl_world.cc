#include "parallel/comm/nccl_world.h"

namespace strata {

NcclWorldOptions OptionsOf(const CommConfig&, std::chrono::milliseconds) { return {}; }

absl::StatusOr<std::unique_ptr<NcclWorld>> MakeNcclWorld(World&, const NcclWorldOptions&) {
  return absl::FailedPreconditionError("several ranks on GPUs need NCCL, without which this strata was built");
}

std::string NcclStatusLine() { return "built without NCCL"; }

}  // namespace strata
