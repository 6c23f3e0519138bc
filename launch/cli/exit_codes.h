#pragma once
// What the process's exit code says to a shell or a launcher.

#include "absl/status/status.h"

namespace strata {

inline constexpr int kExitOk = 0;
inline constexpr int kExitFailure = 1;
inline constexpr int kExitUsage = 64;      // the command line, the config or a file named there: do not restart
inline constexpr int kExitPreempted = 75;  // interrupted, saved: run again to go on
inline constexpr int kExitHang = 124;      // a deadline passed

// OK 0; InvalidArgument, NotFound and AlreadyExists 64; Cancelled 75, DeadlineExceeded 124, else 1. A run that was interrupted returns Cancelled, and
// only after its state is saved.
int ExitCode(const absl::Status& status);

}  // namespace strata
