#pragma once
// What a rank's supervisor tells the launcher, as a small file beside the rank's log: running, exited, killed.

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "core/base/env.h"

namespace strata {

struct RankStatus {
  enum State : uint8_t { kUnknown, kRunning, kExited, kKilled } state = kUnknown;
  int value = 0;         // exit code or signal
  pid_t supervisor = 0;  // its process, to send signals to
  int64_t time_ns = 0;   // of the end, by this machine's steady clock

  bool ended() const { return state == kExited || state == kKilled; }
  int exit_code() const { return state == kKilled ? 128 + value : value; }  // as a shell gives it; once ended
};

std::string RankLogPath(const std::string& log_dir, int rank);     // log_dir/rank-00003.log
std::string RankStatusPath(const std::string& log_dir, int rank);  // log_dir/rank-00003.status

absl::Status WriteRankStatus(Env& env, const std::string& log_dir, int rank, const RankStatus& status);
RankStatus ReadRankStatus(Env& env, const std::string& log_dir, int rank);  // kUnknown where there is none

}  // namespace strata
