#include "launch/cli/exit_codes.h"

#include <string>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"

namespace strata {
namespace {

constexpr char kPayload[] = "strata/exit_code";

}  // namespace

absl::Status WithExitCode(absl::Status status, int code) {
  status.SetPayload(kPayload, absl::Cord(std::to_string(code)));
  return status;
}

int ExitCode(const absl::Status& status) {
  int given = 0;
  const auto payload = status.GetPayload(kPayload);
  if (payload.has_value() && absl::SimpleAtoi(std::string(*payload), &given)) return given;
  switch (status.code()) {
    case absl::StatusCode::kOk: return kExitOk;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kAlreadyExists: return kExitUsage;
    case absl::StatusCode::kUnavailable: return kExitPeerLost;
    case absl::StatusCode::kCancelled: return kExitPreempted;
    case absl::StatusCode::kDeadlineExceeded: return kExitHang;
    default: return kExitFailure;
  }
}

}  // namespace strata
