#pragma once
// The small process between mpirun and one rank: starts it with its outputs in its log, passes signals on, says how it
// ended, and takes it along when it ends itself.

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace strata {

// Runs `strata ARGUMENTS` as the rank that the environment names, until it ends. After a rank that failed it stays until
// it is told to end (SIGTERM), so that mpirun does not end the other ranks before they have said what they saw.
absl::Status SuperviseRank(const std::string& log_dir, const std::vector<std::string>& arguments);

}  // namespace strata
