#pragma once
// The communicator of peer_world.h. Included by CUDA sources only.

#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "core/comm/communicator.h"
#include "core/comm/rank_ledger.h"
#include "parallel/comm/peer_world.h"

namespace strata::internal {

// The same number of T from each member.
template <typename T>
absl::Status Exchange(Communicator& host, std::span<const T> mine, std::vector<T>& all) {
  all.resize(mine.size() * host.spec().ranks.size());
  const Collective gather{.kind = Collective::kAllGather,
                          .dtype = DType::kU8,
                          .count = static_cast<int64_t>(mine.size_bytes()),
                          .in = mine.data(),
                          .out = all.data()};
  return host.Issue({&gather, 1}, Stream{});
}

// Of the threads that are the members of `host`, which connects them on host memory, with `spec` for a name in messages;
// `me` is this one's place. Collective over them. The GPUs reach each other's memory. `ledger` may be null.
absl::StatusOr<std::unique_ptr<Communicator>> ConnectPeers(std::unique_ptr<Communicator> host, CommSpec spec, int me,
                                                           std::shared_ptr<RankLedger> ledger,
                                                           const PeerWorldOptions& options);

}  // namespace strata::internal
