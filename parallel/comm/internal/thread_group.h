#pragma once
// What the members of one communicator share when ranks are threads: published calls, barriers, channels, the first error.
// Members read each other's buffers directly, so nobody leaves Issue() while a peer may still read his.

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "core/comm/communicator.h"
#include "parallel/comm/internal/wait_ledger.h"

namespace strata::internal {

// Thread-safe; a member (its position in spec.ranks) issues from one thread at a time.
class ThreadGroup {
 public:
  // `ledger` is that of the job.
  ThreadGroup(CommSpec spec, std::chrono::milliseconds deadline, std::shared_ptr<WaitLedger> ledger);

  const CommSpec& spec() const { return spec_; }

  // Returns when the calls of `me` are complete; the sends and receives of a span go before its collectives.
  // No allocation unless it fails. Errors end the group for all members: Internal (the members' calls differ),
  // InvalidArgument (peer or count), DeadlineExceeded (names who did not arrive), or the cause given to Abort().
  absl::Status Issue(int me, std::span<const Collective> calls);
  void Abort(const absl::Status& cause);  // the first cause stays
  absl::Status error() const;

 private:
  enum class Outcome : uint8_t { kReady, kAborted, kLate };
  struct Cursor {  // a member's way through the sends and receives of his span, for one peer
    size_t send = 0, recv = 0;
    bool posted = false;  // calls[send] is in the channel
  };
  struct alignas(64) Member {
    std::atomic<uint64_t> arrived{0};  // barriers entered
    std::atomic<bool> reading{false};  // looks at calls and buffers of others
    const Collective* call = nullptr;  // published by `arrived`
    uint64_t sequence = 0;             // collectives begun
    std::vector<Cursor> cursors;       // by peer; his own thread only
    std::vector<const void*> inputs;   // scratch of a reduction
  };

  int size() const { return static_cast<int>(spec_.ranks.size()); }
  std::atomic<const Collective*>& Channel(int from, int to) { return channels_[from * size() + to]; }

  // OK when `ready`; else the first error, or the deadline passes and the ledger says whose fault it is.
  absl::Status Wait(int me, absl::FunctionRef<bool()> ready, WaitLedger::Describe waiting);
  Outcome Sleep(absl::FunctionRef<bool()> ready);
  void Notify();  // after a change that someone may wait for
  absl::Status Fail(const absl::Status& error);
  absl::Status Read(int me, absl::FunctionRef<absl::Status()> fn);
  void WaitForReaders(int me) const;
  bool AllArrived(uint64_t barrier) const;
  absl::Status Barrier(int me);
  std::vector<int> LateRanks(uint64_t barrier) const;

  absl::Status RunCollective(int me, const Collective& c);
  void ReduceOwnSlice(int me, const Collective& c);
  void CopyFromPeers(int me, const Collective& c) const;

  absl::Status PointToPoint(int me, std::span<const Collective> calls);
  absl::Status Advance(int me, int peer, std::span<const Collective> calls);
  absl::Status Receive(int me, int peer, const Collective& c);
  bool CanAdvance(int me, int peer, size_t num_calls);
  Waiting LatePeers(int me, std::span<const Collective> calls) const;

  const CommSpec spec_;
  const std::chrono::milliseconds deadline_;
  const std::shared_ptr<WaitLedger> ledger_;
  const std::unique_ptr<Member[]> members_;
  const std::unique_ptr<std::atomic<const Collective*>[]>
      channels_;  // [from][to]: a posted send that waits to be taken

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<int> sleepers_{0};
  std::atomic<bool> aborted_{false};
  absl::Status cause_;  // guarded by mutex_
};

}  // namespace strata::internal
