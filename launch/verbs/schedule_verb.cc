// plan --schedule.

#include <algorithm>
#include <cstdio>

#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "core/base/env.h"
#include "core/base/status.h"
#include "launch/config/load_config.h"
#include "launch/job/back_end.h"
#include "launch/job/compile.h"
#include "launch/job/plan_report.h"
#include "launch/job/schedule_report.h"
#include "launch/verbs/verbs.h"
#include "parallel/pipeline/text.h"

namespace strata {
namespace {

constexpr int64_t kMaxTextBytes = int64_t{64} << 20;

// Activations of one block, for one micro-batch: those that the plan without a pipeline holds, by block. It need not fit.
absl::StatusOr<double> BytesOfBlock(const JobConfig& asked) {
  JobConfig config = asked;
  config.parallel = {};
  config.parallel.dp = asked.parallel.dp;
  config.parallel.tp = asked.parallel.tp;
  config.parallel.sequence_parallel = asked.parallel.sequence_parallel;
  config.memory.limit.clear();
  ASSIGN_OR_RETURN(const BackEnd back_end, BackEndOf(config));
  ASSIGN_OR_RETURN(const Job job, CompileTraining(config, back_end.kernels));
  ASSIGN_OR_RETURN(const std::vector<Plan> plans, PlanRanks(job, back_end.kernels));
  int64_t bytes = 0;
  for (const Region& r : plans[0].regions) {
    if (r.kind == Region::kSlot) bytes = std::max(bytes, r.bytes);  // train's; eval keeps nothing
  }
  return static_cast<double>(bytes) / static_cast<double>(config.model.layers);
}

absl::StatusOr<ScheduleQuery> QueryOf(const PlanVerbOptions& o, const JobConfig& config, Env& env) {
  ScheduleQuery query{
      .name = o.schedule, .ranks = static_cast<int>(o.pp), .chunks = static_cast<int>(o.virtual_stages)};
  if (absl::EndsWith(o.schedule, ".csv")) {
    ASSIGN_OR_RETURN(const std::string text, ReadText(env, o.schedule, kMaxTextBytes));
    ASSIGN_OR_RETURN(Schedule s, ParseSchedule(text, o.schedule));
    if (query.ranks > 0 && query.ranks != s.ranks) {
      return absl::InvalidArgumentError(
          absl::StrFormat("%s is for %d ranks, --pp is %d", o.schedule, s.ranks, query.ranks));
    }
    if (s.micro_batches != config.batch.accumulate) {
      return absl::InvalidArgumentError(absl::StrFormat("%s is for %d micro-batches, batch.accumulate is %d",
                                                        o.schedule, s.micro_batches, config.batch.accumulate));
    }
    query.ranks = s.ranks;
    query.given.push_back(std::move(s));
  }
  if (query.ranks < 1 && config.parallel.pp > 1) query.ranks = static_cast<int>(config.parallel.pp);
  if (query.ranks < 1) {
    return absl::InvalidArgumentError(
        "--schedule needs the number of pipeline ranks: --pp N, or parallel.pp in the config");
  }
  if (!o.durations.empty()) {
    ASSIGN_OR_RETURN(const std::string text, ReadText(env, o.durations, kMaxTextBytes));
    ASSIGN_OR_RETURN(query.stages, ParseDurations(text));
  }
  const double flops = o.tflops > 0           ? o.tflops * 1e12
                       : query.stages.empty() ? MeasureFlops(config.precision.compute, 1)
                                              : 1;
  query.machine = {.flops_per_s = flops, .latency_s = o.link_us * 1e-6, .bytes_per_s = o.link_gbps * 1e9};
  return query;
}

}  // namespace

absl::Status RunPlanSchedule(const PlanVerbOptions& o) {
  Env& env = Env::Posix();
  ASSIGN_OR_RETURN(const LoadedJob loaded, LoadJobConfig(env, o.config, {}, o.set));
  ASSIGN_OR_RETURN(const ScheduleQuery query, QueryOf(o, loaded.config, env));
  ASSIGN_OR_RETURN(const double bytes_of_block, BytesOfBlock(loaded.config));
  ASSIGN_OR_RETURN(const std::vector<ScheduleRow> rows, CompareSchedules(loaded.config, query, bytes_of_block));
  std::fputs(ScheduleTable(loaded.config, query, rows).c_str(), stdout);
  const std::vector<GanttSection> sections = ScheduleSections(rows);
  const auto write = [&](const std::string& path, const std::string& text) -> absl::Status {
    RETURN_IF_ERROR(WriteTextAtomically(env, path, text));
    std::fputs(absl::StrFormat("wrote %s\n", path).c_str(), stdout);
    return absl::OkStatus();
  };
  if (!o.gantt.empty())
    RETURN_IF_ERROR(write(o.gantt, GanttHtml("pipeline schedules of " + loaded.config.run.name, sections)));
  if (!o.trace.empty()) {
    std::vector<GanttTrack> tracks;
    for (const GanttSection& s : sections) tracks.push_back({s.title, s.tracks[0].timeline});
    RETURN_IF_ERROR(write(o.trace, ChromeTrace(tracks)));
  }
  if (!o.dump.empty()) {
    if (rows.size() != 1)
      return absl::InvalidArgumentError("--dump needs one schedule: --schedule NAME with --virtual N");
    RETURN_IF_ERROR(write(o.dump, DumpSchedule(rows[0].schedule)));
  }
  return absl::OkStatus();
}

}  // namespace strata
