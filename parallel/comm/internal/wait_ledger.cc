#include "parallel/comm/internal/wait_ledger.h"

#include <set>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "parallel/comm/internal/hang_report.h"

namespace strata::internal {

WaitLedger::Entry::Entry(WaitLedger& ledger, int rank, const Describe& describe) : ledger_(ledger), rank_(rank) {
  Rank& slot = ledger_.ranks_[rank_];
  const std::lock_guard lock(slot.mutex);
  slot.waits = &describe;
}

WaitLedger::Entry::~Entry() {
  Rank& slot = ledger_.ranks_[rank_];
  const std::lock_guard lock(slot.mutex);
  slot.waits = nullptr;
}

bool WaitLedger::Find(int rank, Waiting* waiting) const {
  Rank& slot = ranks_[rank];
  const std::lock_guard lock(slot.mutex);
  if (slot.waits == nullptr) return false;
  *waiting = (*slot.waits)();
  return true;
}

absl::Status WaitLedger::Blame(int rank, const Waiting& own, int64_t milliseconds) const {
  const auto late = [&](const Waiting& in, const std::vector<int>& ranks, const std::string& chain) {
    return absl::DeadlineExceededError(absl::StrFormat("%s: rank %s did not arrive within %d ms%s%s", in.call,
                                                       absl::StrJoin(ranks, ", "), milliseconds, chain,
                                                       WhatTheyDo(*activities_, in.spec, ranks)));
  };
  std::set<int> seen = {rank};
  std::string chain, beyond_own;  // how one came from this rank to the one that is looked at
  Waiting at = own;
  while (true) {
    std::vector<int> idle;
    int next = -1;
    Waiting next_waits;
    for (const int r : at.late) {
      Waiting waits;
      if (!Find(r, &waits) || waits.late.empty()) {
        idle.push_back(r);
      } else if (next < 0 && !seen.contains(r)) {
        next = r;
        next_waits = std::move(waits);
      }
    }
    if (!idle.empty()) return late(at, idle, chain);
    const std::string hop =
        absl::StrFormat("; rank %d waits for rank %d in %s", rank, next < 0 ? at.late[0] : next, at.call);
    chain += hop;
    if (seen.size() > 1) beyond_own += hop;
    if (next < 0) return late(own, own.late, beyond_own);
    seen.insert(next);
    rank = next;
    at = std::move(next_waits);
  }
}

}  // namespace strata::internal
