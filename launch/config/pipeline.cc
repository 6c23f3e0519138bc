#include "launch/config/pipeline.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "core/base/status.h"
#include "launch/config/nearest.h"
#include "models/pass_flops.h"
#include "parallel/pipeline/balance.h"
#include "parallel/pipeline/text.h"

namespace strata {
namespace {

constexpr int64_t kMaxScheduleBytes = 64 << 20;

// The fewest stages that the schedule can have, where it cannot be made: enough to check a layout by.
int StagesOf(const JobConfig& job) {
  return static_cast<int>(job.parallel.pp * std::max<int64_t>(1, job.parallel.virtual_stages));
}

// Before there is a graph to ask.
ModelBlocks BlocksOf(const JobConfig& job) { return {static_cast<int>(job.model.layers), kBlockParts}; }

void CheckNames(const ParallelConfig& p, ConfigChecks& c) {
  const std::span<const std::string_view> names = ScheduleNames();
  if (std::find(names.begin(), names.end(), p.schedule) != names.end()) return;
  const std::vector<std::string> known(names.begin(), names.end());
  const std::string nearest = NearestName(p.schedule, known);
  c.Add(ConfigErrorKind::kNotAChoice, "parallel.schedule", absl::StrFormat("\"%s\"", p.schedule),
        absl::StrCat("must be one of ", absl::StrJoin(known, ", ")),
        nearest.empty() ? "" : absl::StrFormat("\"%s\"", nearest));
}

// Keys that say something only of a pipeline.
void CheckUnused(const ParallelConfig& p, ConfigChecks& c) {
  const ParallelConfig defaults;
  const auto refuse = [&](std::string_view key, const std::string& value, std::string_view nearest) {
    c.Add(ConfigErrorKind::kContradiction, key, value, "needs parallel.pp > 1", nearest);
  };
  if (p.schedule != defaults.schedule) {
    refuse("parallel.schedule", absl::StrFormat("\"%s\"", p.schedule), absl::StrFormat("\"%s\"", defaults.schedule));
  }
  if (!p.schedule_file.empty()) refuse("parallel.schedule_file", absl::StrFormat("\"%s\"", p.schedule_file), "\"\"");
  if (p.resident_stages > 0) refuse("parallel.resident_stages", absl::StrCat(p.resident_stages), "0");
  if (p.virtual_stages > 1) refuse("parallel.virtual_stages", absl::StrCat(p.virtual_stages), "1");
  if (p.stage_layout != defaults.stage_layout) {
    refuse("parallel.stage_layout", absl::StrFormat("\"%s\"", p.stage_layout),
           absl::StrFormat("\"%s\"", defaults.stage_layout));
  }
}

}  // namespace

absl::StatusOr<Schedule> ScheduleOf(const JobConfig& job, Env& env) {
  const ParallelConfig& p = job.parallel;
  if (p.schedule_file.empty()) {
    return MakeSchedule({.name = p.schedule,
                         .ranks = static_cast<int>(p.pp),
                         .chunks = static_cast<int>(p.virtual_stages),
                         .micro_batches = static_cast<int>(job.batch.accumulate)});
  }
  ASSIGN_OR_RETURN(const std::string text, ReadText(env, p.schedule_file, kMaxScheduleBytes));
  absl::StatusOr<Schedule> schedule = ParseSchedule(text, p.schedule_file);
  if (!schedule.ok()) return Annotate(schedule.status(), p.schedule_file);
  const auto check = [&](std::string_view key, int64_t wanted, int64_t has, std::string_view what) -> absl::Status {
    if (wanted == has) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrFormat("%s is for %d %s, but %s = %d", p.schedule_file, has, what, key, wanted));
  };
  RETURN_IF_ERROR(check("parallel.pp", p.pp, schedule->ranks, "ranks"));
  RETURN_IF_ERROR(check("batch.accumulate", job.batch.accumulate, schedule->micro_batches, "micro-batches"));
  if (p.virtual_stages > 0) {
    RETURN_IF_ERROR(check("parallel.virtual_stages", p.virtual_stages, schedule->chunks, "stages a rank"));
  }
  return schedule;
}

absl::StatusOr<StageLayout> StageLayoutOf(const JobConfig& job, const Schedule& schedule, const ModelCosts& costs) {
  if (job.parallel.stage_layout == "auto") return FastestLayout(costs, schedule);
  const ModelBlocks blocks{static_cast<int>(job.model.layers), costs.parts_per_block};
  return ParseStageLayout(job.parallel.stage_layout, blocks, schedule.stages());
}

void CheckPipeline(const JobConfig& job, ConfigChecks& c) {
  const ParallelConfig& p = job.parallel;
  if (!c.Ok({"parallel.pp", "parallel.schedule", "parallel.virtual_stages", "parallel.stage_layout"})) return;
  if (p.pp == 1) return CheckUnused(p, c);
  if (p.resident_stages > 0 && p.zero.stage < 3) {
    c.Add(ConfigErrorKind::kContradiction, "parallel.resident_stages", absl::StrCat(p.resident_stages),
          "needs parallel.zero = 3", "0");
  }
  CheckNames(p, c);
  if (!c.Ok({"parallel.schedule", "model.layers"})) return;
  int stages = StagesOf(job);
  if (p.schedule_file.empty() && c.Ok({"batch.accumulate", "batch.tokens", "batch.micro"})) {
    const absl::StatusOr<Schedule> schedule = ScheduleOf(job);
    if (schedule.ok()) stages = schedule->stages();
    if (!schedule.ok()) {
      c.Add(
          {ConfigErrorKind::kContradiction, "parallel.schedule",
           absl::StrFormat("parallel.schedule = \"%s\": with pp = %d ranks and batch.accumulate = %d micro-batches: %s",
                           p.schedule, p.pp, job.batch.accumulate, schedule.status().message())});
    }
  }
  if (const int most = MostStages(BlocksOf(job)); stages > most) {
    c.Add(ConfigErrorKind::kTooLarge, "parallel.pp", absl::StrCat(p.pp),
          absl::StrFormat("makes %d stages, but embedding, %d layers of %d parts and head are at most %d", stages,
                          job.model.layers, kBlockParts, most),
          absl::StrCat(std::max<int64_t>(1, p.pp * most / stages)));
  } else if (p.stage_layout != "auto" && p.schedule_file.empty()) {
    const absl::Status layout = ParseStageLayout(p.stage_layout, BlocksOf(job), stages).status();
    if (layout.ok()) return;
    c.Add({ConfigErrorKind::kContradiction, "parallel.stage_layout",
           absl::StrFormat("parallel.stage_layout = \"%s\": %s", p.stage_layout, layout.message())});
  }
}

void CheckScheduleFile(Env& env, const JobConfig& job, ConfigChecks& c) {
  if (job.parallel.schedule_file.empty()) return;
  const auto refuse = [&](std::string_view key, const absl::Status& why) {
    if (!why.ok()) c.Add({ConfigErrorKind::kMismatch, std::string(key), absl::StrFormat("%s: %s", key, why.message())});
  };
  const absl::StatusOr<Schedule> schedule = ScheduleOf(job, env);
  refuse("parallel.schedule_file", schedule.status());
  if (!schedule.ok()) return;
  if (job.parallel.stage_layout != "auto") {
    refuse("parallel.stage_layout",
           ParseStageLayout(job.parallel.stage_layout, BlocksOf(job), schedule->stages()).status());
  } else if (schedule->stages() > MostStages(BlocksOf(job))) {
    refuse("parallel.schedule_file", BalancedLayout(EvenCosts(BlocksOf(job)), schedule->stages()).status());
  }
}

}  // namespace strata
