// ckpt ls, ckpt verify, ckpt diff.

#include <cstdio>

#include "checkpoint/describe.h"
#include "checkpoint/diff.h"
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

absl::Status RunCkptDiff(const CkptDiffOptions& o) {
  ASSIGN_OR_RETURN(const CheckpointDiff diff, DiffCheckpoints(Env::Posix(), o.a, o.b));
  std::fputs(diff.ToText().c_str(), stdout);
  return diff.differ.empty() ? absl::OkStatus() : absl::FailedPreconditionError("the checkpoints differ");
}

}  // namespace strata
