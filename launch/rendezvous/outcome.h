#pragma once
// How a job ended, from how its ranks ended: which one was the cause, the exit code, and the words for the user.

#include <span>
#include <string>

#include "launch/rendezvous/rank_status.h"

namespace strata {

struct JobOutcome {
  int exit_code = 0;
  int causal_rank = -1;     // of a failure
  std::string description;  // "rank 2 failed first: killed by signal 9 (Killed)", and the other ranks, in two lines
};

// By rank. Those that run still, or never did, were stopped by the launcher. The cause is the failure that came first, but
// a rank that only lost a peer (kExitPeerLost) is a victim as long as there is another. Without a failure: 0, or
// kExitPreempted where ranks were interrupted and saved. A pure function.
JobOutcome JudgeRanks(std::span<const RankStatus> ranks);

std::string RankList(std::span<const int> ranks);  // "0-2, 5"

}  // namespace strata
