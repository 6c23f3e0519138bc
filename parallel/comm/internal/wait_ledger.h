#pragma once
// Who waits for whom, over all communicators of a job whose ranks are threads. A rank that waits for one that waits itself
// is not the nearest to the cause: the ledger is followed to the rank that is in no collective, and that one is blamed.

#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "core/comm/communicator.h"
#include "core/comm/rank_ledger.h"

namespace strata::internal {

struct Waiting {
  std::string call;       // "communicator dp, call 12, barrier"
  std::vector<int> late;  // ranks that it waits for
  CommSpec spec;          // of the communicator
};

// Thread-safe. Enters and leaves without allocation.
class WaitLedger {
 public:
  using Describe = absl::FunctionRef<Waiting()>;

  // Reports say what the blamed ranks do, by `activities`.
  WaitLedger(int num_ranks, std::shared_ptr<RankLedger> activities)
      : ranks_(std::make_unique<Rank[]>(num_ranks)), activities_(std::move(activities)) {}

  // While it lives, `rank` waits. Other ranks' threads may call `describe` then, one at a time.
  class Entry {
   public:
    Entry(WaitLedger& ledger, int rank, const Describe& describe);
    ~Entry();
    Entry(const Entry&) = delete;
    Entry& operator=(const Entry&) = delete;

   private:
    WaitLedger& ledger_;
    const int rank_;
  };

  // DeadlineExceeded after `rank` waited for `milliseconds`: names those of `own.late` that are in no call or, where all of
  // them wait too, those that they wait for, and so on. Where that goes in a circle: `own.late`, and what they wait for. Then
  // what they do.
  // Never with own.late empty; called while the own entry stands.
  absl::Status Blame(int rank, const Waiting& own, int64_t milliseconds) const;

 private:
  struct alignas(64) Rank {
    std::mutex mutex;
    const Describe* waits = nullptr;
  };
  bool Find(int rank, Waiting* waiting) const;  // false where it does not wait

  const std::unique_ptr<Rank[]> ranks_;
  const std::shared_ptr<RankLedger> activities_;
};

}  // namespace strata::internal
