#include "launch/cli/exit_codes.h"

namespace strata {

int ExitCode(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk: return kExitOk;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kAlreadyExists: return kExitUsage;
    case absl::StatusCode::kCancelled: return kExitPreempted;
    case absl::StatusCode::kDeadlineExceeded: return kExitHang;
    default: return kExitFailure;
  }
}

}  // namespace strata
