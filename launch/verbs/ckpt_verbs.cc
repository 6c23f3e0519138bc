// ckpt ls, ckpt verify.

#include <cstdio>

#include "checkpoint/describe.h"
#include "core/base/status.h"
#include "launch/verbs/verbs.h"

namespace strata {

absl::Status RunCkptList(const CkptListOptions& o) {
  ASSIGN_OR_RETURN(const std::string text, DescribeCheckpoints(Env::Posix(), o.folder));
  std::fputs(text.c_str(), stdout);
  return absl::OkStatus();
}

absl::Status RunCkptVerify(const CkptVerifyOptions& o) {
  const VerifyReport report = DescribeVerify(Env::Posix(), o.folder);
  std::fputs(report.text.c_str(), stdout);
  return report.ok ? absl::OkStatus() : absl::DataLossError("verification failed");
}

}  // namespace strata
