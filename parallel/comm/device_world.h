#pragma once
// What carries collectives on a GPU's memory, by parallel.transport.

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "core/comm/communicator.h"
#include "core/exec/device.h"
#include "parallel/comm/comm_config.h"
#include "parallel/comm/nccl_world.h"

namespace strata {

struct DeviceWorld {
  std::unique_ptr<World> world;
  std::string carrier;  // "NCCL 2.28.9", for reports
  Transport taken = Transport::kNccl;
};

// One a rank, on its thread, before `device` reserves memory; `host` and `device` outlive it. Collective over the world.
// `options`: of NCCL; the deadline is that of peers too. Errors: those of MakePeerWorld and MakeNcclWorld.
absl::StatusOr<DeviceWorld> MakeDeviceWorld(World& host, Device& device, Transport transport,
                                            const NcclWorldOptions& options);

}  // namespace strata
