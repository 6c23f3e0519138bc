#pragma once
// Small host-side agreements between ranks, outside the plan: texts to everyone, a flag raised by anyone.

#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/comm/communicator.h"

namespace strata {

// Each rank's text, in rank order, on every rank. Collective.
absl::StatusOr<std::vector<std::string>> AllGatherText(Communicator& comm, const std::string& mine);

// Each of `values` becomes the largest of all ranks'. One collective.
absl::Status AllMax(Communicator& comm, std::span<int64_t> values);

// The largest of all ranks' values. Collective.
absl::StatusOr<int64_t> AllMax(Communicator& comm, int64_t mine);

// `text` of group rank 0, on every rank. Collective.
absl::StatusOr<std::string> BroadcastText(Communicator& comm, const std::string& text);

// OK on every rank, or on every rank the first failed rank's error. Collective.
absl::Status AgreeOn(Communicator& comm, const absl::Status& mine);

}  // namespace strata
