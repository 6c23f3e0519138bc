#pragma once
// Ranks that are threads of one process: the embedded default, and what every parallel test runs on.
// Sums are made in rank order, so all ranks get the same bits and a second run gives them again.

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "absl/status/statusor.h"
#include "core/comm/communicator.h"

namespace strata {

class RankLedger;
namespace internal {
class ThreadGroup;
class WaitLedger;
}  // namespace internal

struct ThreadWorldOptions {
  std::chrono::milliseconds deadline{60'000};  // longest wait for a peer
  // Called by RunRanks with the first error where a rank does not end, so that it cannot return: within 10 s, or the
  // deadline if that is shorter. It may end the process; if it returns, RunRanks waits on.
  std::function<void(const absl::Status&)> on_stuck;
};

// Thread-safe. Communicators complete a call before Issue() returns; the stream is not used. An all-reduce, reduce-scatter,
// all-gather and broadcast may be in place as with NCCL; an all-to-all may not.
class ThreadJob : public std::enable_shared_from_this<ThreadJob> {
 public:
  static std::shared_ptr<ThreadJob> Create(int size, const ThreadWorldOptions& options = {});

  int size() const { return size_; }
  // The place of one rank. It keeps the job alive and belongs to one thread. Its Connect(): in one round ranks may name
  // different groups if these share no rank ("dp" of rank 0 is {0, 2}, "dp" of rank 1 is {1, 3}).
  std::unique_ptr<World> Join(int rank);
  void Abort(const absl::Status& cause);  // of all communicators, and of those made later

 private:
  friend class ThreadWorld;
  using Group = std::shared_ptr<internal::ThreadGroup>;
  struct Round {  // of Connect() calls
    std::vector<Group> groups;
    std::vector<Group> named;  // by rank: the group that he gave; null where he has not arrived
    int arrived = 0;
    absl::Status error;
  };

  ThreadJob(int size, const ThreadWorldOptions& options);
  absl::StatusOr<Group> Connect(int rank, size_t round, const CommSpec& spec);
  void Enter(Round& round, int rank, const CommSpec& spec);

  const int size_;
  const ThreadWorldOptions options_;
  const std::shared_ptr<RankLedger> activities_;
  const std::shared_ptr<internal::WaitLedger> ledger_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Round> rounds_;  // guarded by mutex_, as is cause_
  absl::Status cause_;
};

// Runs body once for each rank, each on its own thread, and waits for all. A rank that returns an error aborts the job, so
// that its peers wake with Unavailable("rank 3: <cause>"). Returns the causal error, annotated with its rank.
absl::Status RunRanks(int size, const std::function<absl::Status(World&)>& body,
                      const ThreadWorldOptions& options = {});

}  // namespace strata
