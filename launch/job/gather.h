#pragma once
// Small host-side agreements between ranks, outside the plan: texts to everyone, a flag raised by anyone.

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/comm/communicator.h"

namespace strata {

// Each rank's text, in rank order, on every rank. Collective.
absl::StatusOr<std::vector<std::string>> AllGatherText(Communicator& comm, const std::string& mine);

// The largest of all ranks' values. Collective.
absl::StatusOr<int64_t> AllMax(Communicator& comm, int64_t mine);

// `text` of group rank 0, on every rank. Collective.
absl::StatusOr<std::string> BroadcastText(Communicator& comm, const std::string& text);

// OK on every rank, or on every rank the first failed rank's error. Collective.
absl::Status AgreeOn(Communicator& comm, const absl::Status& mine);

}  // namespace strata
