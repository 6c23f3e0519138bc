#pragma once
// What the profiled steps of a pipeline say: how long its chunks, transfers and updates take by themselves, which is what the
// simulator is fed with, and when each rank did what, on one clock.
//
// Of one step:
// - A chunk (F, B, I, W of a micro-batch) takes the time in which one of its steps runs, from its first on the compute
//   stream to its last there: collectives that its computing waits for count, gaps in which nothing of it runs do not. So
//   recomputing that runs ahead of a gradient that is still to come makes a chunk no longer.
// - A send or a receive lasts from when its end is there to when the tensor is, so the end that comes first waits; the
//   transfer itself takes as long as the shorter of the two. Likewise collectives of a reduction and of an update: as long
//   as on the rank that waits least.
// - Ranks have clocks of their own. No tensor is received before it is sent: between two neighbours activations bound the
//   difference of their clocks from one side and gradients from the other, by the fastest of each; it is taken in the middle.
// Durations are medians over micro-batches, ranks of a stage, and steps.

#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "core/exec/executor.h"
#include "launch/job/pipeline_job.h"
#include "parallel/pipeline/durations.h"
#include "parallel/pipeline/simulate.h"
#include "parallel/pipeline/timeline.h"

namespace strata {

using StepProfile = std::vector<std::vector<Executor::TimedStep>>;  // of one step, [rank]: Executor::Profile("train")

struct PipelineProfile {
  StageDurations durations;     // with `edges`; what cannot be told apart, such as I and W of B, is divided as modelled
  std::vector<Timeline> steps;  // each of the first rank of every pipeline rank, from 0; a chunk ends where it did
                                // and is as long as it takes with timers between its steps
};

// `modelled`: of each stage. Errors: InvalidArgument where a forward pass or a transfer was not timed.
absl::StatusOr<PipelineProfile> ProfileOf(const JobPipeline& pipeline, std::span<const StepProfile> steps,
                                          std::vector<StageDurations::Stage> modelled);

// One step of it as a timeline; without a pipeline too.
absl::StatusOr<Timeline> TimelineOf(const JobPipeline& pipeline, const StepProfile& step);

// How the plan runs the transfers of a program beside its computing.
Streams StreamsOf(const Program& program);

// Part of the step, from the first work of any rank to the last, in which each rank neither computes nor updates.
std::vector<double> IdleShares(const Timeline& timeline);

}  // namespace strata
