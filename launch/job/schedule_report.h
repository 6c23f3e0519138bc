#pragma once
// What pipeline schedules would do with a job, by simulation: `strata plan JOB --schedule`.

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "launch/config/job_config.h"
#include "parallel/pipeline/durations.h"
#include "parallel/pipeline/gantt.h"
#include "parallel/pipeline/schedule.h"
#include "parallel/pipeline/stage_layout.h"

namespace strata {

// The machine: of one rank, and of a link between two.
struct PipelineMachine {
  double flops_per_s = 0;
  double latency_s = 0, bytes_per_s = 0;
};

struct ScheduleQuery {
  std::vector<Schedule> given;  // by hand; then no others
  std::string name = "all";     // or one of ScheduleNames()
  int ranks = 1;                // of the pipeline
  int chunks = 0;               // stages a rank; 0: what is usual, and 4 where a schedule can have as many
  PipelineMachine machine;
  std::vector<StageDurations::Stage> stages;  // measured; empty: modelled by floating-point operations
};

// Of each stage for one micro-batch on one rank of the data- and tensor-parallel ones, by floating-point operations: those of
// products at `flops_per_s`, those of attention at its RelativeRate.
std::vector<StageDurations::Stage> ModelledStages(const JobConfig& config, const StageLayout& layout,
                                                  double flops_per_s);
// Of the activation of one micro-batch, whole.
double BoundaryBytes(const JobConfig& config);

struct ScheduleRow {
  std::string name;
  int chunks = 0;        // 0: not given
  absl::Status refused;  // why the job cannot have it; then the rest is empty
  Schedule schedule;
  double bubble = 0;            // part of the step in which a rank idles, on average
  double peak = 0;              // micro-batches whose activations a rank holds, one being all its stages
  double activation_bytes = 0;  // of them, on the fullest rank
  double sent_bytes = 0;        // from rank to rank in a step, on the busiest one
  double step_s = 0,
         one_stream_step_s =
             0;       // all micro-batches, the update if it was measured; communication beside compute, or in turn
  Timeline timeline;  // of step_s
};

// bytes_of_block: activations of one block that a micro-batch holds from F to B.
// Errors: InvalidArgument for an unknown name, and where there is one schedule and the job cannot have it.
absl::StatusOr<std::vector<ScheduleRow>> CompareSchedules(const JobConfig& config, const ScheduleQuery& query,
                                                          double bytes_of_block);

std::string ScheduleTable(const JobConfig& config, const ScheduleQuery& query, const std::vector<ScheduleRow>& rows);

// A section for each row that is not refused.
std::vector<GanttSection> ScheduleSections(const std::vector<ScheduleRow>& rows);

}  // namespace strata
