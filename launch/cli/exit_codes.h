#pragma once
// What the process's exit code says to a shell or a launcher.

#include "absl/status/status.h"

namespace strata {

inline constexpr int kExitOk = 0;
inline constexpr int kExitFailure = 1;
inline constexpr int kExitUsage = 64;      // the command line, the config or a file named there: do not restart
inline constexpr int kExitPeerLost = 69;   // another rank's failure ended this one, or a device is gone
inline constexpr int kExitPreempted = 75;  // interrupted, saved: run again to go on
inline constexpr int kExitHang = 124;      // a deadline passed

// The code that WithExitCode gave, else: OK 0; InvalidArgument, NotFound and AlreadyExists 64; Unavailable 69; Cancelled 75;
// DeadlineExceeded 124; else 1. A run that was interrupted returns Cancelled, and only after its state is saved.
int ExitCode(const absl::Status& status);

// `status`, which is an error, with the exit code of another process: 128 + signal, or whatever it ended with.
absl::Status WithExitCode(absl::Status status, int code);

}  // namespace strata
