// launch, and what it starts for each rank.

#include <csignal>
#include <cstdio>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "checkpoint/catalog.h"
#include "core/base/status.h"
#include "launch/cli/exit_codes.h"
#include "launch/config/load_config.h"
#include "launch/rendezvous/environment.h"
#include "launch/rendezvous/launcher.h"
#include "launch/rendezvous/outcome.h"
#include "launch/rendezvous/supervise.h"
#include "launch/verbs/verbs.h"

namespace strata {
namespace {

absl::StatusOr<LaunchSpec> MakeSpec(const LaunchOptions& o, const JobConfig& c) {
  const int64_t ranks = c.parallel.ranks();
  if (o.ranks != 0 && o.ranks != ranks) {
    return absl::InvalidArgumentError(
        absl::StrFormat("-n %d: the config has %d ranks (parallel.dp = %d, parallel.tp = %d)", o.ranks, ranks,
                        c.parallel.dp, c.parallel.tp));
  }
  std::error_code error;
  const std::string log_dir = o.log_dir.empty() ? c.run.out + "/logs" : o.log_dir;
  const std::filesystem::path absolute = std::filesystem::absolute(log_dir, error);
  return LaunchSpec{.ranks = static_cast<int>(ranks),
                    .log_dir = error ? log_dir : absolute.string(),
                    .arguments = o.command,
                    .show = o.show == "all"      ? Show::kAll
                            : o.show == "failed" ? Show::kFailed
                                                 : Show::kFirst,
                    .grace = std::chrono::seconds(o.grace)};
}

std::string HowToGoOn(Env& env, const std::string& out, const LaunchOptions& o) {
  const std::string root = out + "/checkpoints";
  const std::string command = absl::StrCat("strata launch -- ", absl::StrJoin(o.command, " "));
  const absl::StatusOr<std::vector<CheckpointEntry>> all = ListCheckpoints(env, root);
  if (all.ok()) {
    for (const CheckpointEntry& entry : *all) {
      if (!entry.committed) continue;
      return absl::StrFormat("last checkpoint: %s/%s\nto go on from there: %s", root, entry.name, command);
    }
  }
  return absl::StrFormat("no checkpoint was saved; to start again: %s", command);
}

absl::Status Report(const LaunchSpec& spec, const LaunchResult& result, const std::string& go_on) {
  if (!result.problem.empty()) return absl::InternalError(result.problem);
  const JobOutcome outcome = JudgeRanks(result.ranks);
  const std::string logs = absl::StrFormat("logs: %s", spec.log_dir);
  if (outcome.causal_rank >= 0) {
    const std::string path = RankLogPath(spec.log_dir, outcome.causal_rank);
    const std::string& last = result.last_lines[outcome.causal_rank];
    // A rank that was killed does not say itself what it did.
    const bool killed = result.ranks[outcome.causal_rank].state == RankStatus::kKilled;
    const std::string did =
        killed && !result.doing.empty() && !result.doing[outcome.causal_rank].empty()
            ? absl::StrFormat("\nrank %d %s", outcome.causal_rank, result.doing[outcome.causal_rank])
            : "";
    const std::string hint = outcome.exit_code == kExitUsage ? "" : go_on + "\n";
    return WithExitCode(
        absl::UnknownError(absl::StrFormat("%s%s\nlast lines of %s:\n  %s\n%s%s", outcome.description, did, path,
                                           absl::StrReplaceAll(last, {{"\n", "\n  "}}), hint, logs)),
        outcome.exit_code);
  }
  if (result.out_of_grace) {
    return WithExitCode(
        absl::UnknownError(absl::StrFormat("the ranks did not end within --grace=%d s, and were killed\n%s\n%s",
                                           spec.grace.count(), go_on, logs)),
        128 + SIGKILL);
  }
  if (outcome.exit_code == kExitPreempted) {
    return absl::CancelledError(absl::StrFormat("interrupted and saved\n%s", go_on));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status RunLaunch(const LaunchOptions& options) {
  Env& env = Env::Posix();
  ASSIGN_OR_RETURN(const ProcessPlace place, ReadPlace(EnvironmentVariables()));
  if (!place.alone()) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "launch starts the processes itself, and %s says that this is one of %d", place.source, place.size));
  }
  ASSIGN_OR_RETURN(const TrainOptions train, ParseTrain(options.command));
  ASSIGN_OR_RETURN(const LoadedJob job, LoadJobConfig(env, train.config, {.data = true}, train.set));
  ASSIGN_OR_RETURN(const LaunchSpec spec, MakeSpec(options, job.config));
  if (options.dry_run) {
    absl::PrintF("%s\n", LaunchCommand(spec));
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(env.MakeDirs(spec.log_dir));
  ASSIGN_OR_RETURN(const LaunchResult result, LaunchRanks(env, spec));
  return Report(spec, result, HowToGoOn(env, job.config.run.out, options));
}

absl::Status RunLaunchRank(const LaunchRankOptions& options) { return SuperviseRank(options.log_dir, options.command); }

}  // namespace strata
