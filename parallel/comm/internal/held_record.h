#pragma once
// A communicator's line in the ledger of its rank, for as long as it lives. For transports whose calls are complete when
// Issue() returns.

#include <memory>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "core/comm/rank_ledger.h"

namespace strata::internal {

class HeldRecord {
 public:
  // `ledger` may be null, and may have no room.
  HeldRecord(std::shared_ptr<RankLedger> ledger, int rank, const CommSpec& spec)
      : ledger_(std::move(ledger)), record_(ledger_ == nullptr ? nullptr : ledger_->Connect(rank, spec)) {}
  ~HeldRecord() {
    if (record_ != nullptr) record_->Free();
  }
  HeldRecord(const HeldRecord&) = delete;
  HeldRecord& operator=(const HeldRecord&) = delete;

  // One Issue(). A call that fails does not end: others may ask for it still.
  absl::Status Around(absl::FunctionRef<absl::Status()> call) {
    if (record_ == nullptr) return call();
    record_->Issue();
    record_->Progress(record_->issued(), record_->ended());
    absl::Status status = call();
    if (status.ok()) record_->End();
    return status;
  }

  CommRecord* get() const { return record_; }

 private:
  const std::shared_ptr<RankLedger> ledger_;
  CommRecord* const record_;
};

}  // namespace strata::internal
