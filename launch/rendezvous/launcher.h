#pragma once
// Runs the processes of a job on this machine: starts them through mpirun, shows their logs, passes signals on, ends them
// all when one fails. Nothing that it started outlives it.

#include <chrono>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/base/env.h"
#include "launch/rendezvous/rank_status.h"

namespace strata {

enum class Show : uint8_t { kFirst, kAll, kFailed };  // whose log goes to the console as it is written

struct LaunchSpec {
  int ranks = 1;
  std::string log_dir;                 // exists
  std::vector<std::string> arguments;  // of strata, for each rank
  Show show = Show::kFirst;
  std::chrono::seconds grace{120};  // from SIGINT, SIGTERM or SIGUSR1 to the end
};

// What is run, for --dry-run: the variables that are set, then the command.
std::string LaunchCommand(const LaunchSpec& spec);

struct LaunchResult {
  std::vector<RankStatus> ranks;
  std::vector<std::string> last_lines;  // of each rank's log
  std::vector<std::string> doing;       // what each rank did when the first one failed (RankLedger::Describe), if known
  std::string problem;                  // where mpirun itself failed, and ranks say nothing
  bool out_of_grace = false;            // ranks were killed because they did not end in time
};

// Used by the main thread, once a process, while no other thread runs: takes over the signals of the process.
// After one rank failed, the others have a second to end by themselves before all are killed.
absl::StatusOr<LaunchResult> LaunchRanks(Env& env, const LaunchSpec& spec);

}  // namespace strata
