#pragma once
// What the simulator and the lowering know of time: how long a stage takes for one micro-batch, and how long a boundary
// tensor takes from rank to rank. From a model of the job, from a table, or from a measurement. Any unit of time, as long as
// it is the same throughout; seconds outside of tests.

#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "core/plan/plan.h"

namespace strata {

struct StageDurations {
  struct Stage {
    double forward = 1, input_grad = 1, weight_grad = 1;
    double unshard = 0, reduce = 0;  // collectives over the data-parallel ranks
    double backward = 0;             // of B; 0: input_grad + weight_grad
    double update = 0;               // of its parameters, once a step
    double B() const { return backward > 0 ? backward : input_grad + weight_grad; }
  };
  std::vector<Stage> stages;    // [stage], alike for all replicas
  double last_micro_batch = 1;  // its size beside the others', in (0, 1]: compute and transfers shrink alike
  double pair = 1;              // an overlapped pair takes this part of its members' sum
  double latency = 0;           // of a transfer between ranks, to which comes
  double boundary_bytes = 0;    // the activation, or its gradient, of one micro-batch between two stages
  double bytes_per_s = std::numeric_limits<double>::infinity();
  std::vector<double> edges;  // measured, by edge of a lowered schedule: instead of latency and bytes. May be empty

  static StageDurations Uniform(int stages, Stage stage) { return {.stages = std::vector<Stage>(stages, stage)}; }

  // Of one action of a step of `micro_batches`; 0 for what takes no time of its own.
  double Of(const Action& a, int micro_batches) const;
  double Transfer(int micro_batch, int micro_batches) const;
  double TransferOver(int edge, int micro_batch, int micro_batches) const;
};

// InvalidArgument unless there is one Stage for each of `stages`, its compute positive and finite, and the rest in range.
absl::Status CheckDurations(const StageDurations& durations, int stages);

// A table with the header "stage,forward,input_grad,weight_grad" and a line a stage, in seconds; optionally "unshard",
// "reduce", "backward" and "update" too, columns in any order. Errors: InvalidArgument with the line.
absl::StatusOr<std::vector<StageDurations::Stage>> ParseDurations(std::string_view csv);
// Such a table, with all columns.
std::string PrintDurations(std::span<const StageDurations::Stage> stages);

}  // namespace strata
