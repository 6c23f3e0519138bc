#pragma once
// Collectives on a device's memory by a world of host memory: copied through pinned buffers in chunks, of which the next is on
// its way while the one before it is exchanged. For GPUs without NCCL; over MPI the bits are those of thread ranks.

#include <memory>

#include "core/comm/communicator.h"
#include "core/exec/device.h"

namespace strata {

struct StagedWorldOptions {
  int64_t chunk_bytes = int64_t{8} << 20;  // of a rank's input; four buffers of this size are reserved on the host
};

// One rank's, used by its thread; `host` and `device` outlive it. Issue() is ordered on the stream, and returns once the last
// result is on its way back to the device: the thread waits, not only the stream. Ranks must agree on the options.
class StagedWorld final : public World {
 public:
  StagedWorld(World& host, Device& device, const StagedWorldOptions& options = {});
  ~StagedWorld() override;

  int rank() const override { return host_.rank(); }
  int size() const override { return host_.size(); }
  absl::StatusOr<std::unique_ptr<Communicator>> Connect(const CommSpec& group) override;
  RankLedger* ledger() override { return host_.ledger(); }

 private:
  class Staging;
  class StagedCommunicator;

  World& host_;
  Device& device_;
  const StagedWorldOptions options_;
  std::shared_ptr<Staging> staging_;  // made at the first Connect()
};

}  // namespace strata
