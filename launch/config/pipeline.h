#pragma once
// The pipeline that a config asks for: its schedule and its stages.

#include "absl/status/statusor.h"
#include "core/base/config.h"
#include "core/base/env.h"
#include "launch/config/job_config.h"
#include "parallel/pipeline/costs.h"
#include "parallel/pipeline/schedule.h"
#include "parallel/pipeline/stage_layout.h"

namespace strata {

// Errors: InvalidArgument, as MakeSchedule and ParseSchedule, where the schedule cannot have parallel.pp ranks,
// parallel.virtual_stages stages a rank or batch.accumulate micro-batches; of reading parallel.schedule_file.
absl::StatusOr<Schedule> ScheduleOf(const JobConfig& job, Env& env = Env::Posix());

// `costs` are for parallel.stage_layout = "auto", their parts of a block for any. Errors: InvalidArgument, naming a layout that
// would do.
absl::StatusOr<StageLayout> StageLayoutOf(const JobConfig& job, const Schedule& schedule, const ModelCosts& costs);

// Everything between the keys of the pipeline and others; all but what is in parallel.schedule_file.
void CheckPipeline(const JobConfig& job, ConfigChecks& checks);

void CheckScheduleFile(Env& env, const JobConfig& job, ConfigChecks& checks);

}  // namespace strata
