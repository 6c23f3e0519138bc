// ckpt ls, ckpt verify, ckpt diff, ckpt reshard.

#include <cstdio>

#include "checkpoint/describe.h"
#include "checkpoint/diff.h"
#include "checkpoint/reshard.h"
#include "core/base/status.h"
#include "launch/config/load_config.h"
#include "launch/job/back_end.h"
#include "launch/job/checkpoint_io.h"
#include "launch/job/compile.h"
#include "launch/verbs/verbs.h"

namespace strata {
namespace {

// The folder itself, or the checkpoints in it where it is that of a run.
std::string CheckpointsIn(const std::string& folder) {
  const std::string inner = folder + "/checkpoints";
  return Env::Posix().Exists(inner) ? inner : folder;
}

absl::StatusOr<ReshardTarget> TargetOf(const CkptReshardOptions& o, const CheckpointReader& reader) {
  if (o.like.empty()) return TargetOfFiles(reader, o.files);
  ASSIGN_OR_RETURN(const LoadedJob loaded, LoadJobConfig(Env::Posix(), o.like, {}, o.set));
  ASSIGN_OR_RETURN(const BackEnd back_end, BackEndOf(loaded.config));
  ASSIGN_OR_RETURN(const Job job, CompileTraining(loaded.config, back_end.kernels));
  ASSIGN_OR_RETURN(const std::vector<Plan> plans, PlanRanks(job, back_end.kernels));
  return TargetOfPlans(reader, plans, MeshText(job));
}

}  // namespace

absl::Status RunCkptList(const CkptListOptions& o) {
  ASSIGN_OR_RETURN(const std::string text, DescribeCheckpoints(Env::Posix(), CheckpointsIn(o.folder)));
  std::fputs(text.c_str(), stdout);
  return absl::OkStatus();
}

absl::Status RunCkptVerify(const CkptVerifyOptions& o) {
  const VerifyReport report = DescribeVerify(Env::Posix(), CheckpointsIn(o.folder));
  std::fputs(report.text.c_str(), stdout);
  return report.ok ? absl::OkStatus() : absl::DataLossError("verification failed");
}

absl::Status RunCkptDiff(const CkptDiffOptions& o) {
  ASSIGN_OR_RETURN(const CheckpointDiff diff, DiffCheckpoints(Env::Posix(), o.a, o.b));
  std::fputs(diff.ToText().c_str(), stdout);
  return diff.differ.empty() ? absl::OkStatus() : absl::FailedPreconditionError("the checkpoints differ");
}

absl::Status RunCkptReshard(const CkptReshardOptions& o) {
  Env& env = Env::Posix();
  ASSIGN_OR_RETURN(CheckpointReader reader, CheckpointReader::Open(env, o.from));
  ASSIGN_OR_RETURN(const ReshardTarget target, TargetOf(o, reader));
  RETURN_IF_ERROR(Reshard(env, reader, o.to, target));
  std::printf("%s: %zu tensors of step %lld in %zu file%s, checked\n", o.to.c_str(), reader.tensors().size(),
              static_cast<long long>(reader.step()), target.files.size(), target.files.size() == 1 ? "" : "s");
  return absl::OkStatus();
}

}  // namespace strata
