#pragma once
// Who is to blame for a collective that does not end, and what they do, from the ledger of the ranks. Reads only; for errors.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/comm/communicator.h"
#include "core/comm/rank_ledger.h"

namespace strata::internal {

// Of ranks that do not come to a call of `spec`: "; rank 1 has issued 16 calls of dp, and has been reading data for 61.2 s".
// Empty for those of which nothing is known.
std::string WhatTheyDo(const RankLedger& ledger, const CommSpec& spec, std::span<const int> ranks);

struct Culprits {
  std::vector<int> ranks;  // empty: all are in the call
  std::string why;         // "rank 1 has issued 16 calls of dp, and has been ..."
};
// Why call number `call` (from 1) of `spec`, which `rank` issued, does not end: the ranks that did not issue it; or, where all of
// these wait in a call of another communicator themselves, those that did not issue that one, and so on. Where all issued it,
// those whose device has not come to it.
Culprits FindCulprits(const RankLedger& ledger, const CommSpec& spec, uint64_t call, int rank);

}  // namespace strata::internal
