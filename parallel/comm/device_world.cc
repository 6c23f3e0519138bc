#include "parallel/comm/device_world.h"

#include "core/base/status.h"
#include "core/exec/device_memory.h"
#include "parallel/comm/peer_world.h"
#include "parallel/comm/staged_world.h"

namespace strata {

absl::StatusOr<DeviceWorld> MakeDeviceWorld(World& host, Device& device, Transport transport,
                                            const NcclWorldOptions& options) {
  if (transport == Transport::kHost) {
    return DeviceWorld{std::make_unique<StagedWorld>(host, device), "staged through the host", Transport::kHost};
  }
  if (transport != Transport::kNccl) {
    absl::StatusOr<std::unique_ptr<World>> peers = MakePeerWorld(host, {.deadline = options.deadline});
    if (peers.ok()) return DeviceWorld{*std::move(peers), "copies between peers", Transport::kPeers};
    if (transport == Transport::kPeers || !absl::IsFailedPrecondition(peers.status())) return peers.status();
  }
  ASSIGN_OR_RETURN(std::unique_ptr<NcclWorld> nccl, MakeNcclWorld(host, options));
  if (auto* gpu = dynamic_cast<CudaDevice*>(&device)) SetMemory(*gpu, nccl->memory());
  return DeviceWorld{std::move(nccl), NcclStatusLine()};
}

}  // namespace strata
