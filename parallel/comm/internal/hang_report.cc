#include "parallel/comm/internal/hang_report.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace strata::internal {
namespace {

std::string Calls(uint64_t n, const std::string& comm) {
  return absl::StrFormat("%d call%s of %s", n, n == 1 ? "" : "s", comm);
}

std::string WhatItDoes(const RankLedger& ledger, int rank, uint64_t key, const std::string& comm) {
  const CommRecord* record = ledger.Find(rank, key);
  const std::string doing = ledger.Describe(rank);
  if (record == nullptr) return absl::StrFormat("rank %d %s", rank, doing);
  return absl::StrFormat("rank %d has issued %s, and %s", rank, Calls(record->issued(), comm), doing);
}

// One communicator, as a report sees it: its members, and a call of it that does not end.
struct Place {
  uint64_t key;
  std::string comm;
  std::vector<int> members;
  uint64_t call;
};

std::vector<int> Where(const RankLedger& ledger, const Place& at, uint64_t (CommRecord::*count)() const) {
  std::vector<int> behind;
  for (const int r : at.members) {
    const CommRecord* record = ledger.Find(r, at.key);
    if (ledger.known(r) && (record == nullptr || (record->*count)() < at.call)) behind.push_back(r);
  }
  return behind;
}

Place PlaceOf(const RankLedger& ledger, const CommRecord& record) {
  Place at{record.key(), record.name(), {}, record.ended() + 1};
  for (int r = 0; r < ledger.size(); ++r) {
    if (ledger.Find(r, at.key) != nullptr) at.members.push_back(r);
  }
  return at;
}

std::string Describe(const RankLedger& ledger, const Place& at, const std::vector<int>& ranks) {
  return absl::StrJoin(ranks, "; ", [&](std::string* text, int r) { *text += WhatItDoes(ledger, r, at.key, at.comm); });
}

// All have issued the call.
Culprits AllIssued(const RankLedger& ledger, const Place& at, const std::string& chain) {
  const std::vector<int> behind = Where(ledger, at, &CommRecord::begun);
  if (!behind.empty()) {
    return {behind,
            absl::StrFormat("%s%s; its device has not come to call %d", chain, Describe(ledger, at, behind), at.call)};
  }
  std::vector<int> unknown;
  for (const int r : at.members) {
    if (!ledger.known(r)) unknown.push_back(r);
  }
  if (unknown.empty()) return {{}, chain + "all its ranks are in it, so the link between them is stuck"};
  return {unknown, absl::StrFormat("%swhat rank %s does is not known here", chain, absl::StrJoin(unknown, ", "))};
}

}  // namespace

std::string WhatTheyDo(const RankLedger& ledger, const CommSpec& spec, std::span<const int> ranks) {
  std::string text;
  for (const int r : ranks) {
    if (ledger.known(r)) text += "; " + WhatItDoes(ledger, r, KeyOf(spec), spec.name);
  }
  return text;
}

Culprits FindCulprits(const RankLedger& ledger, const CommSpec& spec, uint64_t call, int rank) {
  Place at{KeyOf(spec), spec.name, spec.ranks, call};
  std::set<int> seen = {rank};
  std::string chain;
  while (true) {
    const std::vector<int> late = Where(ledger, at, &CommRecord::issued);
    if (late.empty()) return AllIssued(ledger, at, chain);
    std::vector<int> idle;
    int next = -1;
    for (const int r : late) {
      if (ledger.Unfinished(r, at.key) == nullptr) {
        idle.push_back(r);
      } else if (next < 0 && !seen.contains(r)) {
        next = r;
      }
    }
    if (!idle.empty() || next < 0) {
      const std::vector<int>& blamed = idle.empty() ? late : idle;
      return {blamed, chain + Describe(ledger, at, blamed)};
    }
    seen.insert(next);
    const CommRecord* record = ledger.Unfinished(next, at.key);
    if (record == nullptr) continue;  // it went on just now
    const Place then = PlaceOf(ledger, *record);
    chain += absl::StrFormat("rank %d has not come to it and waits in call %d of %s; ", next, then.call, then.comm);
    at = then;
  }
}

}  // namespace strata::internal
