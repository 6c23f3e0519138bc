#pragma once
// One rank's part in a communicator over NCCL.

#include <cuda_runtime.h>

#include <array>
#include <chrono>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "core/comm/communicator.h"
#include "core/comm/rank_ledger.h"
#include "parallel/comm/internal/held_record.h"
#include "parallel/comm/internal/nccl_library.h"
#include "parallel/comm/nccl_world.h"

namespace strata::internal {

struct NcclBuffer {
  void* data = nullptr;
  int64_t bytes = 0;
};

// Issue() and Close() from the rank's thread; the rest from any. The watch (nccl_watch.h) calls Look() every few milliseconds.
// Whoever sees an error first, keeps it; all communicators of the rank are then aborted together: freeing one waits for the
// device, which may wait for another one.
class NcclCommunicator final : public Communicator {
 public:
  struct Shared {  // by the communicators of a rank
    NcclLibrary lib;
    int rank = 0;
    NcclWorldOptions options;
    std::shared_ptr<RankLedger> ledger;  // may be null
  };
  // `host` connects the same ranks on host memory: an abort reaches the others through it.
  NcclCommunicator(std::shared_ptr<const Shared> shared, CommSpec spec, std::unique_ptr<Communicator> host);
  ~NcclCommunicator() override;
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;

  absl::Status Init(const ncclUniqueId& id);
  const CommSpec& spec() const override { return spec_; }
  absl::Status Issue(std::span<const Collective> calls, Stream stream) override;
  absl::Status Poll() override { return Look(); }
  // Of the others' parts too. What runs on the device ends a little later, by the watches.
  void Abort(const absl::Status& cause) override;
  absl::Status Close() override;

  // Memory that collectives read and write, made by ncclMemAlloc; what a rank registers, all register. Before Issue().
  absl::Status Register(const NcclBuffer& buffer, NcclBuffers how);

  // OK, or why this communicator is of no use any more: an error of NCCL, a collective that takes too long, or another rank's
  // abort. Stops nothing.
  absl::Status Look();
  // From now on every call returns `cause`. The first half of an abort: the second is AbortAll.
  void Doom(const absl::Status& cause);
  void Tell(const absl::Status& cause);  // the other ranks, if they do not know a cause yet
  // Ends what doomed communicators have on the device, all before any is freed. Those whose rank is in Issue() end there.
  static void AbortAll(std::span<NcclCommunicator* const> doomed);

 private:
  using Clock = std::chrono::steady_clock;
  struct Pending {  // a call on its way
    cudaEvent_t begun = nullptr, ended = nullptr;
    uint64_t sequence = 0, until = 0;  // calls, from 1; several where there was no room
    Collective call;
    Doing doing;  // what the rank did when it issued it
    Clock::time_point since;
  };

  int size() const { return static_cast<int>(spec_.ranks.size()); }
  absl::Status Launch(std::span<const Collective> calls, cudaStream_t stream);
  absl::Status Enqueue(const Collective& c, cudaStream_t stream);
  absl::Status Settle(const char* what);
  absl::Status Hung(const Pending& oldest) const;
  absl::Status LookForGone(const Pending& oldest);
  Pending* Begin(const Collective& call);
  void End(Pending* pending);
  void Retire();
  absl::Status Cause();
  ncclComm_t Take();  // to abort it; null where there is nothing to abort, or Issue() has it

  const std::shared_ptr<const Shared> shared_;
  const NcclLibrary& lib_;
  const CommSpec spec_;
  const int me_;
  const std::unique_ptr<Communicator> host_;
  HeldRecord record_;
  int* barrier_ = nullptr;

  std::mutex mutex_;  // guards what follows; never held during a call that may wait
  ncclComm_t comm_ = nullptr;
  bool issuing_ = false;  // the rank's thread uses comm_
  Clock::time_point issuing_since_;
  absl::Status cause_;
  std::vector<void*> registered_;
  std::vector<ncclWindow_t> windows_;
  uint64_t sequence_ = 0, begun_ = 0, ended_ = 0;  // calls
  std::array<Pending, 64> pending_;
  size_t first_ = 0, last_ = 0;  // of pending_, modulo its size
  Clock::time_point last_end_ = Clock::now();
  Clock::time_point next_look_;  // for ranks whose processes have ended
};

}  // namespace strata::internal
